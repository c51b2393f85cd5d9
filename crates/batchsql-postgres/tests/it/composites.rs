//! Values that a part of a column's type would change: an attribute of a composite type, an element of an array of them, a bound
//! of a range. They are rejected row by row, or converted by the database if allowed.

use batchsql_core::{ColumnType, ErrorClass, Json, Schema, Sink, Value};
use batchsql_postgres::Strategy;
use batchsql_postgres::sqlx::Executor;

use crate::support::{
    FOR_EVERY_RULE, execute, fresh, fresh_dsn, outcomes, pipeline, read, values, with_parameter, with_strategy, write,
};

const TYPES: &str = "CREATE DOMAIN price AS numeric(6,2);
    CREATE TYPE pair AS (amount numeric(6,2), label text);
    CREATE TYPE moment AS (at timestamp(0), clock time(3), zoned timestamptz(0), day date);
    CREATE TYPE texts AS (v varchar(3), c char(3), t text);
    CREATE TYPE floats AS (r real, d double precision, n numeric);
    CREATE TYPE around AS (inside pair, list pair[], cost price, span tsrange, costs price[]);
    CREATE DOMAIN pairs AS pair[];
    CREATE DOMAIN checked AS pair CHECK ((VALUE).label <> 'no');
    CREATE DOMAIN price_list AS price[];
    CREATE TYPE pricerange AS RANGE (subtype = price);
    CREATE TYPE timerange AS RANGE (subtype = time);
    CREATE TYPE floatrange AS RANGE (subtype = float8);
    CREATE TYPE spans AS (waits interval);
    CREATE TYPE place AS (name text, at point, areas box[]);";

/// A column, a value that it stores, what is stored, a value that it changes, the code, and the server's conversion.
type Case = (&'static str, Value, &'static str, Value, &'static str, &'static str);

fn json(text: &str) -> Value {
    text.parse::<Json>().unwrap().into()
}

fn cases() -> Vec<Case> {
    let text = |text: &str| Value::from(text);
    vec![
        ("pair", text("(1.23,a)"), "(1.23,a)", text("(1.239,a)"), "22000", "(1.24,a)"),
        (
            "pair",
            text(" ( 1.5 ,\"a \"\"b\"\", \\\\\")"),
            "(1.50,\"a \"\"b\"\", \\\\\")",
            text("(\"1.\"00\\5,x)"),
            "22000",
            "(1.01,x)",
        ),
        ("pair", text("(,)"), "(,)", text("(1e-3,)"), "22000", "(0.00,)"),
        (
            "place",
            text("(a,\"(0.1,2)\",\"{(1,1),(0,0);(2,2),(0.1,0)}\")"),
            "(a,\"(0.1,2)\",\"{(1,1),(0,0);(2,2),(0.1,0)}\")",
            text("(0.12345678901234567890,\"(9007199254740993,1)\",)"),
            "22000",
            "(0.12345678901234567890,\"(9.007199254740992e+15,1)\",)",
        ),
        (
            "place",
            text("(a,,)"),
            "(a,,)",
            text("(a,,\"{(1,1),(0,0);(9007199254740993,2),(0,0)}\")"),
            "22000",
            "(a,,\"{(1,1),(0,0);(9.007199254740992e+15,2),(0,0)}\")",
        ),
        ("checked", text("(1.2,yes)"), "(1.20,yes)", text("(0.001,)"), "22000", "(0.00,)"),
        (
            "pair[]",
            text(r#"{"(1.23,\"b c\")",NULL}"#),
            r#"{"(1.23,\"b c\")",NULL}"#,
            text(r#"{"(1,a)","(1.239,b)"}"#),
            "22000",
            r#"{"(1.00,a)","(1.24,b)"}"#,
        ),
        (
            "pair[]",
            json(r#"["(1.23,a)", null]"#),
            r#"{"(1.23,a)",NULL}"#,
            json(r#"["(1.239,a)"]"#),
            "22000",
            r#"{"(1.24,a)"}"#,
        ),
        (
            "pairs",
            text("[0:0]={(1.23\\,a)}"),
            r#"[0:0]={"(1.23,a)"}"#,
            text(r#"{{"(1.239,a)"},{NULL}}"#),
            "22000",
            r#"{{"(1.24,a)"},{NULL}}"#,
        ),
        (
            "price_list[]",
            text(r#"{"{1.23,NULL}"}"#),
            r#"{"{1.23,NULL}"}"#,
            text(r#"{"{1.239}"}"#),
            "22000",
            r#"{"{1.24}"}"#,
        ),
        (
            "moment",
            text("(2026-01-31 12:00:00,12:00:00.123,2026-01-31 12:00:00+00,2026-01-31)"),
            "(\"2026-01-31 12:00:00\",12:00:00.123,\"2026-01-31 12:00:00+00\",2026-01-31)",
            text("(2026-01-31 12:00:00.6,,,)"),
            "22000",
            "(\"2026-01-31 12:00:01\",,,)",
        ),
        ("moment", text("(,,,)"), "(,,,)", text("(,23:59:59.9999,,)"), "22000", "(,24:00:00,,)"),
        (
            "moment",
            text("(,,,)"),
            "(,,,)",
            text("(,,2026-01-31 12:00:00.6+00,)"),
            "22000",
            "(,,\"2026-01-31 12:00:01+00\",)",
        ),
        ("moment", text("(,,,)"), "(,,,)", text("(,,,2026-01-31 12:00)"), "22000", "(,,,2026-01-31)"),
        (
            "moment",
            text("(,,,)"),
            "(,,,)",
            text("(\"2026-01-31 12:00:00+02\",,,)"),
            "22000",
            "(\"2026-01-31 12:00:00\",,,)",
        ),
        (
            "texts",
            text("(ab ,ab,long text)"),
            "(\"ab \",\"ab \",\"long text\")",
            text("(ab  ,,)"),
            "22001",
            "(\"ab \",,)",
        ),
        ("texts", text("(,,)"), "(,,)", text("(,\"abc \",)"), "22001", "(,abc,)"),
        (
            "floats",
            text("(0.1,0.30000000000000004,1.00500)"),
            "(0.1,0.30000000000000004,1.00500)",
            text("(0.123456789,,)"),
            "22000",
            "(0.12345679,,)",
        ),
        (
            "floats",
            text("(NaN,-Infinity,)"),
            "(NaN,-Infinity,)",
            text("(,9007199254740993,)"),
            "22000",
            "(,9.007199254740992e+15,)",
        ),
        (
            "around",
            text(r#"("(1.5,x)","{""(2.5,y)""}",3.25,"[2026-01-01 12:00,)","{1.5}")"#),
            r#"("(1.50,x)","{""(2.50,y)""}",3.25,"[""2026-01-01 12:00:00"",)",{1.50})"#,
            text(r#"("(1.239,x)",,,,)"#),
            "22000",
            r#"("(1.24,x)",,,,)"#,
        ),
        ("around", text("(,,,,)"), "(,,,,)", text(r#"(,"{""(2.009,y)""}",,,)"#), "22000", r#"(,"{""(2.01,y)""}",,,)"#),
        ("around", text("(,,,,)"), "(,,,,)", text("(,,3.259,,)"), "22000", "(,,3.26,,)"),
        (
            "around",
            text("(,,,empty,)"),
            "(,,,empty,)",
            text(r#"(,,,"[2026-01-01 12:00Z,)",)"#),
            "22000",
            r#"(,,,"[""2026-01-01 12:00:00"",)",)"#,
        ),
        ("around", text("(,,,,)"), "(,,,,)", text(r#"(,,,,"{1.5,2.009}")"#), "22000", r#"(,,,,"{1.50,2.01}")"#),
        ("pricerange", text("[1.23,)"), "[1.23,)", text("[1.239,2)"), "22000", "[1.24,2.00)"),
        (
            "pricemultirange",
            text("{[1.23,2),[3,4)}"),
            "{[1.23,2.00),[3.00,4.00)}",
            text("{[1,2),[3,4.009)}"),
            "22000",
            "{[1.00,2.00),[3.00,4.01)}",
        ),
        (
            "timerange",
            text("[12:00,13:00)"),
            "[12:00:00,13:00:00)",
            text("[12:00+02,13:00)"),
            "22000",
            "[12:00:00,13:00:00)",
        ),
        ("floatrange", text("(,0.1]"), "(,0.1]", text("[9007199254740993,)"), "22000", "[9.007199254740992e+15,)"),
        ("pricerange[]", json(r#"["[1.23,)"]"#), r#"{"[1.23,)"}"#, json(r#"["[1.239,)"]"#), "22000", r#"{"[1.24,)"}"#),
        (
            "spans",
            text("(1 day 2 hours)"),
            "(\"1 day 02:00:00\")",
            text("(1.1234567 seconds)"),
            "22000",
            "(00:00:01.123457)",
        ),
    ]
}

fn column_type(value: &Value) -> ColumnType {
    if matches!(value, Value::Json(_)) { ColumnType::Json } else { ColumnType::Text }
}

fn table(cases: &[Case]) -> String {
    let columns: Vec<String> = cases.iter().enumerate().map(|(n, case)| format!("c{n} {}", case.0)).collect();
    format!("{TYPES} CREATE TABLE t (id bigint PRIMARY KEY, {})", columns.join(","))
}

fn schema(cases: &[Case]) -> Schema {
    let builder = Schema::builder("t").column("id", ColumnType::I64);
    let builder =
        cases.iter().enumerate().fold(builder, |b, (n, case)| b.column(format!("c{n}"), column_type(&case.1)));
    builder.build().unwrap()
}

/// Row `n` has a value in column `n` that would be changed; the last row has none.
#[tokio::test]
async fn parts_that_would_be_changed_reject_exactly_their_rows() {
    let cases = cases();
    let schema = schema(&cases);
    for strategy in FOR_EVERY_RULE {
        let dsn = with_parameter(&fresh_dsn(&table(&cases)).await, "options[TimeZone]=UTC");
        let sink = with_strategy(&dsn, strategy).await;
        let value = |row: usize, n: usize| if row == n { cases[n].3.clone() } else { cases[n].1.clone() };
        let rows = (0..=cases.len()).map(|row| {
            values(&schema, [Value::I64(row as i64)].into_iter().chain((0..cases.len()).map(|n| value(row, n))))
        });
        for (n, outcome) in outcomes(&sink, rows).await.iter().enumerate() {
            let error = outcome.failure().and_then(|failed| failed.error());
            let Some(case) = cases.get(n) else {
                assert!(error.is_none(), "{error:?}");
                continue;
            };
            let failed = outcome.failure().unwrap_or_else(|| panic!("{} kept {:?}", case.0, case.3));
            assert_eq!(
                (failed.class(), failed.code()),
                (Some(ErrorClass::Row), Some(case.4)),
                "{} {:?}",
                case.0,
                case.3
            );
            let told = error.unwrap().to_string();
            assert!(told.contains(&format!("column \"c{n}\"")), "{told}");
            for part in ["1.2", "12:00", "59:", "9007", "0.1", "abc"] {
                assert!(!told.contains(part), "a value in {told}");
            }
        }
        assert_eq!(read(&sink, "SELECT id FROM t").await, [cases.len().to_string()], "{strategy:?}");
        for (n, case) in cases.iter().enumerate() {
            let stored = read(&sink, &format!("SELECT c{n}::text FROM t")).await;
            assert_eq!(stored, [case.2], "{} {strategy:?}", case.0);
        }
    }
}

#[tokio::test]
async fn the_database_converts_parts_where_it_may() {
    let cases = cases();
    let schema = schema(&cases);
    let dsn = with_parameter(&fresh_dsn(&table(&cases)).await, "lossy_values=convert&options[TimeZone]=UTC");
    let sink = with_strategy(&dsn, Strategy::Auto).await;
    let changed = cases.iter().map(|case| case.3.clone());
    assert_eq!(write(&sink, [values(&schema, [Value::I64(1)].into_iter().chain(changed))]).await, ["written"]);
    for (n, case) in cases.iter().enumerate() {
        assert_eq!(read(&sink, &format!("SELECT c{n}::text FROM t")).await, [case.5], "{}", case.0);
    }
}

/// What the server refuses is refused with its code, also if the row is refused before it is sent.
#[tokio::test]
async fn texts_that_the_server_does_not_read_are_refused_as_it_does() {
    for (ty, malformed) in [
        ("pair", "(1)"),
        ("pair", "(1,2,3)"),
        ("pair", "1,2"),
        ("pair", "(1,\"a)"),
        ("pair", "(1,a) x"),
        ("pair[]", "{(1,a)}"),
        ("pair[]", "{\"(1,a)\""),
        ("pricerange", "[1)"),
        ("pricerange", "[1,2,3)"),
        ("pricemultirange", "{[1,2)"),
        ("price_list[]", "{{1,}}"),
    ] {
        let sink = fresh(&format!("{TYPES} CREATE TABLE t (v {ty})")).await;
        let schema = Schema::builder("t").column("v", ColumnType::Text).build().unwrap();
        let found = outcomes(&sink, [values(&schema, [malformed.into()])]).await;
        let failed = found[0].failure().unwrap();
        assert_eq!((failed.class(), failed.code()), (Some(ErrorClass::Row), Some("22P02")), "{ty} {malformed}");
        let refused = sink.pg_pool().execute(&*format!("SELECT '{malformed}'::{ty}")).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "22P02", "{ty} {malformed}");
    }
}

/// Parts whose values the server may change, and whose texts only the server can read.
#[tokio::test]
async fn parts_that_cannot_be_checked_are_refused_by_name() {
    let table = |attribute: &str| {
        format!("CREATE TYPE part AS (a int, b {attribute}); CREATE TYPE whole AS (p part[]); CREATE TABLE t (v whole)")
    };
    let schema = Schema::builder("t").column("v", ColumnType::Text).build().unwrap();
    for attribute in ["interval day", "interval day to second(3)", "money", "name", "\"char\""] {
        let dsn = fresh_dsn(&table(attribute)).await;
        let sink = with_strategy(&dsn, Strategy::Auto).await;
        let error = sink.prepare(&mut sink.acquire().await.unwrap(), &schema).await.unwrap_err();
        let told = error.to_string();
        assert!(error.class() == ErrorClass::Schema && told.contains("a part \"p.b\" of type"), "{attribute}: {told}");
        let sink = with_strategy(&with_parameter(&dsn, "lossy_values=convert"), Strategy::Auto).await;
        assert_eq!(write(&sink, [values(&schema, ["(\"{\"\"(1,)\"\"}\")".into()])]).await, ["written"], "{attribute}");
    }
}

/// The elements of arrays of boxes have semicolons between them.
#[tokio::test]
async fn boxes_in_a_composite_type_are_checked() {
    let sink = fresh("CREATE TYPE land AS (areas box[]); CREATE TABLE t (v land)").await;
    let schema = Schema::builder("t").column("v", ColumnType::Text).build().unwrap();
    let rows = ["(1,1)", "(9007199254740993,1)"].map(|corner| {
        let land = format!(r#"("{{""(2,2),(1,1)"";""{corner},(0,0)""}}")"#);
        values(&schema, [land.into()])
    });
    let found = outcomes(&sink, rows).await;
    assert!(found[0].failure().is_none(), "{:?}", found[0]);
    assert_eq!(found[1].failure().unwrap().code(), Some("22000"));
    assert_eq!(read(&sink, "SELECT (v).areas::text FROM t").await, ["{(2,2),(1,1);(1,1),(0,0)}"]);
}

/// What is accepted is stored as it means.
#[tokio::test]
async fn an_interval_of_few_digits_in_a_composite_type_is_checked() {
    let sink = fresh("CREATE TYPE waits AS (wait interval(3)); CREATE TABLE t (v waits)").await;
    let schema = Schema::builder("t").column("v", ColumnType::Text).build().unwrap();
    let kept = ["1 day 00:00:01.123", "0.001 min", "P1.5DT2.12S", "1.5 years", "-00:00:01.5", "PT1.5e3S"];
    for text in kept {
        let found = outcomes(&sink, [values(&schema, [format!("({text})").into()])]).await;
        assert!(found[0].failure().is_none(), "{text}");
        let same = format!("SELECT ('{text}'::interval = '{text}'::interval(3))::text");
        assert_eq!(read(&sink, &same).await, ["true"], "{text}");
    }
    for text in ["00:00:01.1234", "PT1e-4S", "1500 microseconds", "0.000001 min"] {
        let found = outcomes(&sink, [values(&schema, [format!("({text})").into()])]).await;
        assert_eq!(found[0].failure().unwrap().code(), Some("22000"), "{text}");
        let same = format!("SELECT ('{text}'::interval = '{text}'::interval(3))::text");
        assert_eq!(read(&sink, &same).await, ["false"], "{text}");
    }
    assert_eq!(read(&sink, "SELECT count(*)::text FROM t").await, [kept.len().to_string()]);
}

/// The type of a column may be changed without any change of the table.
#[tokio::test]
async fn an_attribute_that_was_added_is_read_again() {
    let sink = fresh("CREATE TYPE pair AS (amount numeric(6,2)); CREATE TABLE t (v pair)").await;
    let schema = Schema::builder("t").column("v", ColumnType::Text).build().unwrap();
    let db = pipeline(&sink);
    let write = async |text: &str| {
        let receipt = db.submit_tracked(&values(&schema, [text.into()])).await.unwrap();
        db.flush().await.unwrap();
        receipt.await.kind().name()
    };
    assert_eq!(write("(1.23)").await, "written");
    execute(sink.pg_pool(), "ALTER TYPE pair ADD ATTRIBUTE fee numeric(6,2)").await;
    assert_eq!(write("(1.23,4.56)").await, "written");
    assert_eq!(write("(1.23,4.567)").await, "rejected");
    assert_eq!(read(&sink, "SELECT v::text FROM t").await, ["(1.23,)", "(1.23,4.56)"]);
}
