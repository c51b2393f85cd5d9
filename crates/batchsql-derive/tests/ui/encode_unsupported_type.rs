use batchsql_derive::Encode;

#[derive(Encode)]
#[row(crate = "batchsql_core")]
struct R(std::time::Instant);

fn main() {}
