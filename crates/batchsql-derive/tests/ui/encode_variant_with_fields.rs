use batchsql_derive::Encode;

#[derive(Encode)]
#[row(crate = "batchsql_core")]
enum R {
    A,
    B(i64),
}

fn main() {}
