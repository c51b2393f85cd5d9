use batchsql_derive::RowColumns;

#[derive(RowColumns)]
#[row(crate = "batchsql_core", table = "t")]
struct R {
    id: i64,
}

fn main() {}
