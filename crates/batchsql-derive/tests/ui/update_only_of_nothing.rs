use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update_only")]
struct R {
    id: i64,
    #[row(skip_none)]
    note: Option<i64>,
}

fn main() {}
