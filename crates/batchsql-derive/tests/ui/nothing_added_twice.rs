use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update", may_add_twice)]
struct R {
    id: i64,
    state: i64,
}

fn main() {}
