use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "ignore")]
struct R {
    id: Option<i64>,
}

fn main() {}
