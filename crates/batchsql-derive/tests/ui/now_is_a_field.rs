use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update", now = "changed_at")]
struct R {
    id: i64,
    changed_at: i64,
}

fn main() {}
