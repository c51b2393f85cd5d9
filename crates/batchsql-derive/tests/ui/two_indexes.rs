use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update", on_constraint = "k", on_partial_index = "NOT gone")]
struct R {
    id: i64,
}

fn main() {}
