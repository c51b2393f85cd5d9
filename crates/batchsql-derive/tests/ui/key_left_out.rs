use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "ignore")]
struct R {
    #[row(default)]
    id: i64,
    other: i64,
}

fn main() {}
