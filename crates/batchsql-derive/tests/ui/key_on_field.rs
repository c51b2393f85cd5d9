use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", on_conflict = "update")]
struct R {
    #[row(key)]
    id: i64,
}

fn main() {}
