use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update_only", on_constraint = "k")]
struct R {
    id: i64,
    state: i64,
}

fn main() {}
