use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update", only_if_newer = "version")]
struct R {
    id: i64,
    #[row(skip_none)]
    version: Option<i64>,
    state: i64,
}

fn main() {}
