use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
struct R {
    id: i64,
    #[row(skip_none)]
    field: String,
}

fn main() {}
