use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key("id", "version"), on_conflict = "update", only_if_newer = "version")]
struct R {
    id: i64,
    version: i64,
}

fn main() {}
