use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", now = "changed_at")]
struct R {
    id: i64,
}

fn main() {}
