use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update")]
struct R {
    id: i64,
    #[row(raw)]
    hits: i64,
}

fn main() {}
