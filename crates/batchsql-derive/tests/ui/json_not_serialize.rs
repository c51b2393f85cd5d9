use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
struct R {
    id: i64,
    #[row(json)]
    field: std::time::Instant,
}

fn main() {}
