use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", returning())]
struct Generated {
    a: i64,
}

fn main() {}
