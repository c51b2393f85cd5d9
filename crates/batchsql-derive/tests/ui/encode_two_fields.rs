use batchsql_derive::Encode;

#[derive(Encode)]
#[row(crate = "batchsql_core")]
struct R {
    id: i64,
    other: i64,
}

fn main() {}
