use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update")]
struct R {
    #[row(greatest)]
    id: i64,
    hits: i64,
}

fn main() {}
