use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
struct R {
    #[row(with = text)]
    id: i64,
}

fn text(_: &i64) -> std::time::Instant {
    std::time::Instant::now()
}

fn main() {}
