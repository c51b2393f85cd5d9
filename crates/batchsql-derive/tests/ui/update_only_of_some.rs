use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update_only", update("a"))]
struct R {
    id: i64,
    a: i64,
}

fn main() {}
