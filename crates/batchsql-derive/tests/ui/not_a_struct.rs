use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
enum R {
    A,
}

fn main() {}
