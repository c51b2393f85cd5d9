use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "upsert")]
struct R {
    id: i64,
}

fn main() {}
