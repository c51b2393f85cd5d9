use batchsql_derive::Encode;

#[derive(Encode)]
#[row(crate = "batchsql_core")]
enum R {
    A,
    #[row(rename = "A")]
    B,
}

fn main() {}
