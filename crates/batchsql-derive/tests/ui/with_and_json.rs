use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
struct R {
    id: i64,
    #[row(with = f, json)]
    field: Option<String>,
}

fn main() {}
