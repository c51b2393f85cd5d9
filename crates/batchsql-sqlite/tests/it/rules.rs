//! Rules whose outcome depends on the stored row, where SQLite differs from other databases.

use batchsql_core::{ColumnType, Conflict, Expr, Schema, Value};

use crate::support::{memory, pipeline, read, write};

fn schema(conflict: Conflict) -> Schema {
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
    schema.on_conflict(conflict).build().unwrap()
}

fn rows(schema: &Schema, rows: &[(i64, i64)]) -> Vec<batchsql_core::DynRow> {
    let row = |(id, n): &(i64, i64)| schema.row().set("id", *id).unwrap().set("n", *n).unwrap().finish().unwrap();
    rows.iter().map(row).collect()
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, at TEXT); INSERT INTO t VALUES (1, 10, NULL)";

#[tokio::test]
async fn a_sum_that_is_no_integer_is_refused_and_the_rows_are_written_one_by_one() {
    let sink = memory(TABLE).await;
    let schema = schema(Conflict::update(["id"]).set("n", Expr::add()));
    let large = i64::MAX - 15;
    // 10 + 5 + large is the largest integer but 0; one more is too large.
    let batch = rows(&schema, &[(1, 5), (2, 1), (1, large), (1, 1)]);
    assert_eq!(write(&sink, batch).await, ["written", "written", "written", "rejected"]);
    let max = i64::MAX;
    let found = read(&sink, "SELECT id, n, typeof(n) FROM t ORDER BY id").await;
    assert_eq!(found, [format!("1|{max}|integer"), "2|1|integer".to_owned()]);
}

#[tokio::test]
async fn the_clock_has_the_form_of_the_column() {
    let sink = memory(TABLE).await;
    let check = async |ty: Option<ColumnType>, form: &'static str| {
        let rule = Conflict::update_columns(["id"], ["n"]).set("at", Expr::now());
        let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
        let schema = match ty {
            Some(ty) => schema.nullable("at", ty),
            None => schema,
        };
        let schema = schema.on_conflict(rule).build().unwrap();
        let row = schema.row().set("id", 1_i64).unwrap().set("n", 1_i64).unwrap();
        let row = if ty.is_some() { row.set("at", Value::Null).unwrap() } else { row };
        assert_eq!(write(&sink, [row.finish().unwrap()]).await, ["written"], "{ty:?}");
        let length =
            read(&sink, "SELECT replace(replace(at, substr(date('now'), 1, 4), 'YYYY'), 'x', 'x') FROM t").await;
        let shape: String = length[0].chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, form, "{ty:?}");
    };
    check(None, "YYYY-00-00 00:00:00.000").await;
    check(Some(ColumnType::Date), "YYYY-00-00").await;
    check(Some(ColumnType::Timestamp), "YYYY-00-00 00:00:00.000000").await;
    check(Some(ColumnType::TimestampTz), "YYYY-00-00 00:00:00.000000+00:00").await;
}

#[tokio::test]
async fn the_index_of_a_rule_is_found_by_its_condition() {
    let sink = memory(
        "CREATE TABLE t (id INTEGER, n INTEGER, gone INTEGER NOT NULL DEFAULT 0);
         CREATE UNIQUE INDEX i ON t (id) WHERE gone = 0; INSERT INTO t VALUES (1, 10, 1), (2, 20, 0)",
    )
    .await;
    let schema = schema(Conflict::update(["id"]).set("n", Expr::add()).on_partial_index("gone = 0"));
    assert_eq!(write(&sink, rows(&schema, &[(1, 1), (2, 2)])).await, ["written", "written"]);
    let found = read(&sink, "SELECT id, n, gone FROM t ORDER BY id, n").await;
    assert_eq!(found, ["1|1|0", "1|10|1", "2|22|0"]);
}

#[tokio::test]
async fn a_rule_that_the_database_does_not_have_is_refused_with_the_reason() {
    let check = async |schema: Schema, part: &str| {
        let sink = memory(TABLE).await;
        let error = pipeline(&sink).prepare(&schema).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let update = || Conflict::update(["id"]);
    check(schema(update().on_constraint("c")), "by name").await;
    check(schema(Conflict::update(["n"]).set("id", Expr::greatest()).on_partial_index("id > 1")), "WHERE of the rule")
        .await;
    check(schema(update().set("n", Expr::raw("no_function({new})"))), "raw expressions").await;
    check(schema(update().set("no", Expr::now())), "raw expressions and columns").await;
    check(schema(Conflict::update_only(["n"])), "UNIQUE index").await;
    let text = Schema::builder("t").column("id", ColumnType::I64).column("at", ColumnType::Decimal);
    check(text.clone().on_conflict(update().set("at", Expr::add())).build().unwrap(), "as text").await;
    check(text.on_conflict(update().only_if_newer("at")).build().unwrap(), "as text").await;
}
