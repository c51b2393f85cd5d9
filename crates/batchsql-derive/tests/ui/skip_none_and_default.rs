use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
struct R {
    id: i64,
    #[row(skip_none, default)]
    field: Option<String>,
}

fn main() {}
