use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "delete")]
struct R {
    id: i64,
    name: String,
}

fn main() {}
