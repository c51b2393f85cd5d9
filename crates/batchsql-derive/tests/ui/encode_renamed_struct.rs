use batchsql_derive::Encode;

#[derive(Encode)]
#[row(crate = "batchsql_core", rename_all = "snake_case")]
struct R(i64);

fn main() {}
