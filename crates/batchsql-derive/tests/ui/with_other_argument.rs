use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
struct R {
    #[row(with = text)]
    id: i64,
}

fn text(number: &i32) -> String {
    number.to_string()
}

fn main() {}
