use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update", update("state"), only_if_newer = "version")]
struct R {
    id: i64,
    version: i64,
    state: i64,
}

fn main() {}
