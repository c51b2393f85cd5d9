use batchsql_derive::Row;

fn text(hits: &i64) -> String {
    hits.to_string()
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update")]
struct R {
    id: i64,
    #[row(add)]
    note: Option<String>,
    #[row(add, with = text)]
    hits: i64,
    #[row(add, json)]
    tags: Vec<i64>,
    #[row(add)]
    good: Option<i64>,
}

fn main() {}
