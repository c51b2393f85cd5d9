//! Rules whose outcome depends on the stored row, where SQLite differs from other databases.

use batchsql_core::{ColumnType, Conflict, Date, Expr, Schema, Timestamp, TimestampTz, Value};
use batchsql_testkit::check_versions;

use crate::support::{coalescing, memory, pipeline, read, write};

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

#[tokio::test]
async fn generated_values_are_returned_to_the_receipts() {
    let sink = memory(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, n INTEGER NOT NULL,
                         made TEXT DEFAULT '2000-01-01', blob BLOB DEFAULT x'0102'); INSERT INTO t VALUES (7, 'old', 1, NULL, NULL)",
    )
    .await;
    let table = |rule| {
        let table =
            Schema::builder("t").column("name", ColumnType::Text).column("n", ColumnType::I64).on_conflict(rule);
        table.returning("id", ColumnType::I64).returning("made", ColumnType::Date).returning("blob", ColumnType::Bytes)
    };
    let row = |schema: &Schema, name: &str, n: i64| {
        schema.row().set("name", name).unwrap().set("n", n).unwrap().finish().unwrap()
    };
    let check = async |rule: Conflict, expected: &[(&str, &str, Option<i64>)]| {
        let schema = table(rule).build().unwrap();
        let db = coalescing(&sink);
        let mut receipts = Vec::new();
        for (name, ..) in expected {
            receipts.push(db.submit_tracked(&row(&schema, name, 2)).await.unwrap());
        }
        db.flush().await.unwrap();
        for ((name, outcome, id), receipt) in expected.iter().zip(receipts) {
            let (found, returned) = receipt.with_returned().await;
            assert_eq!(found.kind().name(), *outcome, "{name}");
            let found = returned.as_ref().map(|returned| returned.get("id").unwrap());
            assert_eq!(found, id.map(batchsql_core::ValueRef::I64), "{name}");
            if *name == "a" && id.is_some() {
                let returned = returned.unwrap();
                let date = batchsql_core::Date::from_ymd(2000, 1, 1).unwrap();
                assert_eq!(returned.get("made"), Some(batchsql_core::ValueRef::Date(date)));
                assert_eq!(returned.get("blob"), Some(batchsql_core::ValueRef::Bytes(&[1, 2])));
                assert_eq!(returned.get("no"), None);
            }
        }
    };
    check(Conflict::none(), &[("a", "written", Some(8)), ("old", "rejected", None), ("b", "written", Some(9))]).await;
    check(Conflict::ignore(["name"]), &[("a", "ignored", None), ("c", "written", Some(10))]).await;
    check(Conflict::update(["name"]), &[("old", "superseded", None), ("old", "written", Some(7))]).await;
    let add = Conflict::update(["name"]).set("n", Expr::add());
    check(add, &[("old", "written", Some(7)), ("d", "written", Some(11)), ("old", "written", Some(7))]).await;
    assert_eq!(read(&sink, "SELECT n FROM t WHERE id = 7").await, ["6"]);
    // A value that is no number.
    let wrong = Schema::builder("t").column("name", ColumnType::Text).column("n", ColumnType::I64);
    let wrong = wrong.returning("name", ColumnType::I64).build().unwrap();
    let mut config = batchsql_core::PipelineConfig::default();
    config.park_for = std::time::Duration::ZERO;
    let db = batchsql_core::BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let receipt = db.submit_tracked(&row(&wrong, "x", 1)).await.unwrap();
    let error = receipt.await.failure().unwrap().error().unwrap().to_string();
    assert!(error.contains("\"name\" is no i64") && !error.contains('x'), "{error}");
    // A number that no float keeps.
    let big = Schema::builder("t").column("name", ColumnType::Text).column("n", ColumnType::I64);
    let big = big.returning("n", ColumnType::F64).build().unwrap();
    for (name, n, expected) in [("y", (1 << 53) + 1, None), ("z", 1 << 53, Some(9_007_199_254_740_992.0))] {
        let receipt = db.submit_tracked(&row(&big, name, n)).await.unwrap();
        let (outcome, returned) = receipt.with_returned().await;
        let found = returned.as_ref().map(|returned| returned.get("n").unwrap());
        assert_eq!(found, expected.map(batchsql_core::ValueRef::F64), "{outcome:?}");
    }
}

#[tokio::test]
async fn floats_are_added_in_columns_of_every_number_type() {
    for ty in ["REAL", "NUMERIC", "DECIMAL(10,2)"] {
        let sql: &'static str =
            format!("CREATE TABLE t (id INTEGER PRIMARY KEY, n {ty}); INSERT INTO t VALUES (1, 1)").leak();
        let sink = memory(sql).await;
        let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::F64);
        let schema = schema.on_conflict(Conflict::update(["id"]).set("n", Expr::add())).build().unwrap();
        let row = schema.row().set("id", 1_i64).unwrap().set("n", 0.5).unwrap().finish().unwrap();
        assert_eq!(write(&sink, [row]).await, ["written"], "{ty}");
        assert_eq!(read(&sink, "SELECT n = 1.5 FROM t").await, ["1"], "{ty}");
    }
}

#[tokio::test]
async fn versions_of_every_type_are_compared_as_they_are_stored() {
    let time = |micros| Value::from(Timestamp::from_micros_since_epoch(micros).unwrap());
    let instant = |micros| Value::from(TimestampTz::from_micros_since_epoch(micros).unwrap());
    let date = |day| Value::from(Date::from_ymd(2000, 1, day).unwrap());
    // One that is older than the stored one, the stored one, and a newer one.
    let cases: [(&str, ColumnType, [Value; 3]); 8] = [
        ("INTEGER", ColumnType::I16, [Value::from(-10_i16), 9_i16.into(), 10_i16.into()]),
        ("INTEGER", ColumnType::I32, [Value::from(-10_i32), 9_i32.into(), 10_i32.into()]),
        ("INTEGER", ColumnType::I64, [Value::from(-10_i64), 9_i64.into(), 10_i64.into()]),
        ("REAL", ColumnType::F32, [Value::from(0.1_f32), 0.2_f32.into(), 1e30_f32.into()]),
        ("REAL", ColumnType::F64, [Value::from(0.1), 0.2.into(), 1e300.into()]),
        ("TEXT", ColumnType::Date, [date(9), date(10), date(11)]),
        ("TEXT", ColumnType::Timestamp, [time(-1), time(1_000_000), time(1_000_001)]),
        ("TEXT", ColumnType::TimestampTz, [instant(-1), instant(1_000_000), instant(1_000_001)]),
    ];
    for (ty, column, versions) in cases {
        let sink = memory(format!("CREATE TABLE t (id INTEGER PRIMARY KEY, v {ty})").leak()).await;
        check_versions(&sink, column, versions, ty).await;
    }
}

#[tokio::test]
async fn a_list_is_written_as_json_and_to_no_column_of_numbers() {
    let sink = memory("CREATE TABLE t (id INTEGER PRIMARY KEY, list TEXT, n INT)").await;
    let schema = |column: &str| {
        Schema::builder("t").column("id", ColumnType::I64).nullable(column, ColumnType::Json).build().unwrap()
    };
    let lists = schema("list");
    let list = |id: i64, list: Value| lists.row().set_all([id.into(), list]).unwrap().finish().unwrap();
    let rows = [
        list(1, Value::from(vec![Some(1_i64), None, Some(i64::MAX)])),
        list(2, Value::from(vec!["a", "\"'"])),
        list(3, Value::from(Vec::<f64>::new())),
        list(4, Value::Null),
    ];
    assert_eq!(write(&sink, rows).await, ["written"; 4]);
    let found = read(
        &sink,
        "SELECT id, json_array_length(list), json_extract(list, '$[1]'), json_extract(list, '$[2]') FROM t",
    )
    .await;
    let expected =
        [format!("1|3|NULL|{}", i64::MAX), "2|2|\"'|NULL".into(), "3|0|NULL|NULL".into(), "4|NULL|NULL|NULL".into()];
    assert_eq!(found, expected);
    let error = pipeline(&sink).prepare(&schema("n")).await.unwrap_err().to_string();
    assert!(error.contains("its column \"n\""), "{error}");
}
