use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update")]
struct R {
    id: i64,
    #[row(greatest)]
    note: String,
    #[row(least)]
    is_on: bool,
    #[row(least)]
    good: i64,
}

fn main() {}
