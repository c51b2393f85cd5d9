use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", returning("id": std::time::Duration))]
struct Generated {
    a: i64,
}

fn main() {}
