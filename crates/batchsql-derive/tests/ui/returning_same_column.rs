use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", returning("id": i64, "id": i32))]
struct Generated {
    a: i64,
}

fn main() {}
