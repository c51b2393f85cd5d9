use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", rename_all = "Snake")]
struct R {
    id: i64,
}

fn main() {}
