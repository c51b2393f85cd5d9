use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core")]
struct R {
    id: i64,
}

fn main() {}
