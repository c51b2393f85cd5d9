use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
struct R {
    #[row(skip_none)]
    id: Option<i64>,
    #[row(default)]
    other: i64,
}

fn main() {}
