//! Lists of scalars: into array columns of every type, with NULL elements, and into JSON columns.

use batchsql_core::{ColumnType, Conflict, Date, Decimal, Schema, TimestampTz, Value};

use batchsql_postgres::Strategy;

use crate::support::{
    FOR_EVERY_RULE, execute, fresh, fresh_dsn, pipeline, read, values, with_parameter, with_strategy, write,
};

#[tokio::test]
async fn lists_become_arrays_of_the_type_of_the_column() {
    let decimal = |text: &str| text.parse::<Decimal>().unwrap();
    let cases: Vec<(&str, Value, &str)> = vec![
        (
            "bigint[]",
            vec![Some(i64::MIN), None, Some(i64::MAX)].into(),
            "{-9223372036854775808,NULL,9223372036854775807}",
        ),
        ("int[]", Vec::<i32>::new().into(), "{}"),
        ("smallint[]", vec![1_i16, -2].into(), "{1,-2}"),
        ("boolean[]", vec![Some(true), None, Some(false)].into(), "{t,NULL,f}"),
        ("float8[]", vec![0.1, 1e300, f64::NAN, f64::NEG_INFINITY].into(), "{0.1,1e+300,NaN,-Infinity}"),
        ("real[]", vec![0.1_f32, 1e20].into(), "{0.1,1e+20}"),
        (
            "numeric[]",
            vec![decimal("12345678901234567890.10"), decimal("-0.5")].into(),
            "{12345678901234567890.10,-0.5}",
        ),
        ("numeric[]", vec![u64::MAX].into(), "{18446744073709551615}"),
        (
            "text[]",
            vec![Some("a,\"b\" {c}"), None, Some("NULL"), Some("")].into(),
            "{\"a,\\\"b\\\" {c}\",NULL,\"NULL\",\"\"}",
        ),
        ("bytea[]", vec![vec![0_u8, 255], Vec::new()].into(), "{\"\\\\x00ff\",\"\\\\x\"}"),
        ("date[]", vec![Date::from_ymd(2026, 1, 31).unwrap()].into(), "{2026-01-31}"),
        (
            "timestamptz[]",
            vec![TimestampTz::from_micros_since_epoch(1).unwrap()].into(),
            "{\"1970-01-01 00:00:00.000001+00\"}",
        ),
        ("jsonb", vec![1_i64, 2].into(), "[1, 2]"),
    ];
    for (ty, list, expected) in cases {
        for strategy in FOR_EVERY_RULE {
            let sink = with_strategy(
                &fresh_dsn(&format!("CREATE TABLE t (id bigint PRIMARY KEY, list {ty})")).await,
                strategy,
            )
            .await;
            let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("list", ColumnType::Json);
            let schema = schema.on_conflict(Conflict::update(["id"])).build().unwrap();
            let rows = [values(&schema, [1_i64.into(), list.clone()]), values(&schema, [2_i64.into(), Value::Null])];
            assert_eq!(write(&sink, rows).await, ["written"; 2], "{ty} {strategy:?}");
            let found = read(&sink, "SET timezone = 'UTC'; SELECT list::text FROM t ORDER BY id").await;
            assert_eq!(found, [expected, "NULL"], "{ty} {strategy:?}");
        }
    }
}

#[tokio::test]
async fn an_element_that_its_column_cannot_hold_rejects_its_row_only() {
    let sink = fresh("CREATE TABLE t (id bigint PRIMARY KEY, list smallint[])").await;
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("list", ColumnType::Json).build().unwrap();
    let row = |id: i64, list: Vec<i64>| values(&schema, [id.into(), list.into()]);
    assert_eq!(
        write(&sink, [row(1, vec![1]), row(2, vec![70_000]), row(3, vec![3])]).await,
        ["written", "rejected", "written"]
    );
    let wrong = Schema::builder("t").column("id", ColumnType::Json).build().unwrap();
    let error = pipeline(&sink).prepare(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("json, jsonb, text or an array"), "{error}");
}

/// Otherwise the server stores a text `NULL` in its place.
#[tokio::test]
async fn null_in_the_text_of_an_array_is_none_whatever_the_session_has() {
    let dsn = fresh_dsn(
        "CREATE TYPE pair AS (n bigint, list text[]); CREATE TABLE t (id bigint PRIMARY KEY, list text[], pair pair)",
    )
    .await;
    for rule in [Conflict::none(), Conflict::replace(["id"]), Conflict::update_only(["id"])] {
        for strategy in FOR_EVERY_RULE {
            let sink = with_strategy(&with_parameter(&dsn, "options[array_nulls]=off"), strategy).await;
            execute(sink.pg_pool(), "TRUNCATE t").await;
            if rule.action() == batchsql_core::Action::UpdateOnly {
                execute(sink.pg_pool(), "INSERT INTO t SELECT generate_series(1, 3)").await;
            }
            if rule == Conflict::none() && strategy == Strategy::Staging {
                continue;
            }
            let schema = Schema::builder("t").column("id", ColumnType::I64).column("list", ColumnType::Text);
            let schema = schema.column("pair", ColumnType::Text).on_conflict(rule.clone()).build().unwrap();
            let rows = (1..4).map(|id| values(&schema, [id.into(), "{a,NULL}".into(), "(1,\"{NULL}\")".into()]));
            assert_eq!(write(&sink, rows).await, ["written"; 3]);
            let stored =
                "SELECT DISTINCT list[2] IS NULL, (pair).list[1] IS NULL, current_setting('array_nulls') FROM t";
            assert_eq!(read(&sink, stored).await, ["t|t|off"], "{strategy:?} {rule:?}");
        }
    }
}
