use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "nope", on_conflict = "ignore")]
struct R {
    id: i64,
}

fn main() {}
