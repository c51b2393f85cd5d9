//! Values that a column would change: rejected row by row, or converted by the database if allowed.

use std::time::Duration;

use batchsql_core::{
    Attempt, ColumnType, Decimal, ErrorClass, Json, Schema, Sink, Time, Timestamp, TimestampTz, Value,
};
use batchsql_postgres::Strategy;

use crate::support::{
    Dsn, execute, fresh, fresh_dsn, outcomes, read, skip, values, with_parameter, with_strategy, write,
};

const ALL: [Strategy; 5] = [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Copy, Strategy::Staging];

fn decimal(text: &str) -> Value {
    text.parse::<Decimal>().unwrap().into()
}

fn json(text: &str) -> Value {
    text.parse::<Json>().unwrap().into()
}

/// A column, the type of its rows, a value that it stores unchanged, one that it changes, the error code of that
/// one, and the server's conversion of it.
type Lossy = (&'static str, ColumnType, Value, Value, &'static str, &'static str);

/// Values that a column changes, in the form in which they are sent, and the server's conversion of them.
fn lossy_values() -> Vec<Lossy> {
    let time = |text: &str| -> Value {
        let micros = text.split(['.', ':']).map(|part| part.parse::<i64>().unwrap()).collect::<Vec<_>>();
        let micros = ((micros[0] * 60 + micros[1]) * 60 + micros[2]) * 1_000_000 + micros[3];
        Time::from_micros_since_midnight(micros).unwrap().into()
    };
    let stamp = |micros| -> Value { Timestamp::from_micros_since_epoch(micros).unwrap().into() };
    let stamptz = |micros| -> Value { TimestampTz::from_micros_since_epoch(micros).unwrap().into() };
    let text = ColumnType::Text;
    vec![
        ("numeric(6,2)", ColumnType::Decimal, decimal("1.01"), decimal("1.005"), "22000", "1.01"),
        ("price", ColumnType::Decimal, decimal("1.01"), decimal("1.005"), "22000", "1.01"),
        ("numeric(3,-2)", ColumnType::Decimal, decimal("12300"), decimal("12345"), "22000", "12300"),
        ("numeric(3,-2)", ColumnType::I64, 12_300_i64.into(), 12_345_i64.into(), "22000", "12300"),
        ("timestamp(3)", ColumnType::Timestamp, stamp(1_001_000), stamp(1_001_600), "22000", "1970-01-01 00:00:01.002"),
        ("moment", ColumnType::Timestamp, stamp(1_000_000), stamp(1_600_000), "22000", "1970-01-01 00:00:02"),
        ("timestamptz(0)", ColumnType::TimestampTz, stamptz(0), stamptz(500_001), "22000", "1970-01-01 00:00:01+00"),
        ("timestamp(0)", text, "infinity".into(), "2026-01-31T12:00:00.6".into(), "22000", "2026-01-31 12:00:01"),
        ("time(0)", ColumnType::Time, time("23:59:59.0"), time("23:59:59.999999"), "22000", "24:00:00"),
        ("varchar(3)", text, "ab ".into(), "ab  ".into(), "22001", "ab "),
        ("char(3)", text, "ab".into(), "abc ".into(), "22001", "abc"),
        ("varchar(3)", ColumnType::Json, json("12"), json("[1]   "), "22001", "[1]"),
        ("numeric(6,2)[]", ColumnType::Json, json("[1.50]"), json("[1, 1.005]"), "22000", "{1.00,1.01}"),
        ("numeric(6,2)[]", text, "{1.50}".into(), "{1,1.005}".into(), "22000", "{1.00,1.01}"),
        ("price[]", text, "{1.50}".into(), "{1,1.005}".into(), "22000", "{1.00,1.01}"),
        ("prices", ColumnType::Json, json("[1.50]"), json("[\"1.005\"]"), "22000", "{1.01}"),
        (
            "timestamp(0)[]",
            text,
            "{2026-01-01 12:00}".into(),
            "{2026-01-01 12:00:00.6}".into(),
            "22000",
            "{\"2026-01-01 12:00:01\"}",
        ),
        (
            "timestamp[]",
            text,
            "{2026-01-01 12:00}".into(),
            "{2026-01-01 12:00:00.1234567}".into(),
            "22000",
            "{\"2026-01-01 12:00:00.123457\"}",
        ),
        ("date[]", ColumnType::Json, json("[\"2026-01-01\"]"), json("[\"2026-01-01 12:00\"]"), "22000", "{2026-01-01}"),
        (
            "timestamp[]",
            text,
            "{2026-01-01 12:00}".into(),
            "{2026-01-01 12:00+05}".into(),
            "22000",
            "{\"2026-01-01 12:00:00\"}",
        ),
        (
            "tsrange",
            text,
            "[2026-01-01 12:00,)".into(),
            "[2026-01-01 12:00Z,)".into(),
            "22000",
            "[\"2026-01-01 12:00:00\",)",
        ),
        ("daterange", text, "[2026-01-01,)".into(), "[2026-01-01 12:00,)".into(), "22000", "[2026-01-01,)"),
        ("varchar(3)[]", text, "{abc}".into(), "{\"ab  \"}".into(), "22000", "{\"ab \"}"),
        ("char(3)[]", text, "{abc}".into(), "{\"abc  \"}".into(), "22000", "{abc}"),
        ("oid", text, "7".into(), "-1".into(), "22000", "4294967295"),
        ("oid[]", text, "{7}".into(), "{-1}".into(), "22000", "{4294967295}"),
        ("xid", text, "7".into(), "4294967297".into(), "22000", "1"),
        ("cid", text, "7".into(), "4294967297".into(), "22000", "1"),
        ("interval day", text, "1 day".into(), "1 day 2 hours".into(), "22000", "1 day"),
        ("interval(0)", text, "1 day 2 seconds".into(), "1.6 seconds".into(), "22000", "00:00:02"),
        ("interval", text, "0.123456 seconds".into(), "0.1234567 seconds".into(), "22000", "00:00:00.123457"),
        ("timetz(0)", text, "12:00:00+02".into(), "12:00:00.6+02".into(), "22000", "12:00:01+02"),
        ("money", text, "1.50".into(), "1.509".into(), "22000", "$1.51"),
        ("money", text, "$1,000.50".into(), "$1.009".into(), "22000", "$1.01"),
        ("money", text, "-$1.50".into(), "1,000.009".into(), "22000", "$1,000.01"),
        ("money", text, "-1.5".into(), "(1.009)".into(), "22000", "-$1.01"),
        ("money[]", text, "{1.50}".into(), "{1.509}".into(), "22000", "{$1.51}"),
        ("real[]", ColumnType::Json, json("[0.1, null]"), json("[1, 0.123456789]"), "22000", "{1,0.12345679}"),
        ("real[]", text, "{1.50,NaN,-Infinity,1e-40}".into(), "{16777217}".into(), "22000", "{1.6777216e+07}"),
        (
            "double precision[]",
            ColumnType::Json,
            json("[0.1, 5e-324, 0.30000000000000004]"),
            json("[0.12345678901234567890]"),
            "22000",
            "{0.12345678901234568}",
        ),
        (
            "floats",
            text,
            "{-0,9007199254740992}".into(),
            "{9007199254740993}".into(),
            "22000",
            "{9.007199254740992e+15}",
        ),
        ("time[]", text, "{12:00}".into(), "{12:00:00+02}".into(), "22000", "{12:00:00}"),
        ("time[]", text, "{12:00:00.5}".into(), "{12:00 UTC}".into(), "22000", "{12:00:00}"),
        ("time[]", text, "{12:00 PM}".into(), "{2026-01-31 12:00}".into(), "22000", "{12:00:00}"),
        ("timetz", text, "12:00:00+02".into(), "2026-01-31 12:00+02".into(), "22000", "12:00:00+02"),
        (
            "timestamp[]",
            text,
            "{\"Sat Jan 31 12:00:00 2026\"}".into(),
            "{20260131T120000Z}".into(),
            "22000",
            "{\"2026-01-31 12:00:00\"}",
        ),
        ("tsrange", text, "[20260131T1200,)".into(), "[2026-01-31 UTC,)".into(), "22000", "[\"2026-01-31 00:00:00\",)"),
        ("daterange", text, "[20260131,)".into(), "[20260131T120000,)".into(), "22000", "[2026-01-31,)"),
        ("date[]", text, "{294277-01-01}".into(), "{2026-01-31 1200}".into(), "22000", "{2026-01-31}"),
        ("point", text, "(0.1,-2)".into(), "(0.12345678901234567890,1)".into(), "22000", "(0.12345678901234568,1)"),
        ("spot", text, "(0.1,-2)".into(), "(9007199254740993,1)".into(), "22000", "(9.007199254740992e+15,1)"),
        (
            "lseg",
            text,
            "[(0,0),(1,0.1)]".into(),
            "[(0,0),(1,9007199254740993)]".into(),
            "22000",
            "[(0,0),(1,9.007199254740992e+15)]",
        ),
        (
            "box",
            text,
            "(0.1,1),(0,0)".into(),
            "(9007199254740993,1),(0,0)".into(),
            "22000",
            "(9.007199254740992e+15,1),(0,0)",
        ),
        (
            "path",
            text,
            "[(0,0),(1,0.1)]".into(),
            "[(0,0),(9007199254740993,1)]".into(),
            "22000",
            "[(0,0),(9.007199254740992e+15,1)]",
        ),
        (
            "polygon",
            text,
            "((0,0),(1,0.1))".into(),
            "((0,0),(9007199254740993,1))".into(),
            "22000",
            "((0,0),(9.007199254740992e+15,1))",
        ),
        (
            "circle",
            text,
            "<(0,0),0.1>".into(),
            "<(0,0),9007199254740993>".into(),
            "22000",
            "<(0,0),9.007199254740992e+15>",
        ),
        ("line", text, "{1,-1,0.1}".into(), "[(0,0),(3,1)]".into(), "22000", "{0.3333333333333333,-1,0}"),
        ("line", text, "{1,-1,0.1}".into(), "{1,-1,9007199254740993}".into(), "22000", "{1,-1,9.007199254740992e+15}"),
        (
            "point[]",
            ColumnType::Json,
            json("[\"(0.1,1)\", null]"),
            json("[\"(9007199254740993,1)\"]"),
            "22000",
            "{\"(9.007199254740992e+15,1)\"}",
        ),
        (
            "point[]",
            text,
            "[0:1]={\"(1,2)\",\"(3,4)\"}".into(),
            "[0:0]={\"(9007199254740993,1)\"}".into(),
            "22000",
            "[0:0]={\"(9.007199254740992e+15,1)\"}",
        ),
        (
            "box[]",
            text,
            "{(1,1),(0,0);NULL}".into(),
            "{(1,1),(0,0);(9007199254740993,1),(0,0)}".into(),
            "22000",
            "{(1,1),(0,0);(9.007199254740992e+15,1),(0,0)}",
        ),
        ("interval", text, "1.1234567 days".into(), "1.1234567 seconds".into(), "22000", "00:00:01.123457"),
    ]
}

const LOSSY_TYPES: &str = "CREATE DOMAIN price AS numeric(6,2); CREATE DOMAIN prices AS numeric(6,2)[];
    CREATE DOMAIN instant AS timestamp(0); CREATE DOMAIN moment AS instant;
    CREATE DOMAIN floats AS double precision[]; CREATE DOMAIN spot AS point;";

/// Row `n` has a value in column `n` that would be changed; the last row has none.
#[tokio::test]
async fn values_that_a_column_would_change_reject_exactly_their_rows() {
    for strategy in ALL {
        let mut cases = lossy_values();
        if strategy == Strategy::Copy {
            cases.retain(|case| {
                !case.0.contains("[]")
                    && !matches!(
                        case.0,
                        "prices" | "floats" | "money" | "timetz(0)" | "tsrange" | "oid" | "xid" | "cid"
                    )
            });
            cases.retain(|case| !case.0.starts_with("interval"));
            let shapes = ["point", "spot", "lseg", "box", "path", "polygon", "circle", "line"];
            cases.retain(|case| !shapes.contains(&case.0));
        }
        let sink = with_strategy(&lossy_dsn(&cases).await, strategy).await;
        let schema = lossy_schema(&cases);
        let value = |row: usize, n: usize| if row == n { cases[n].3.clone() } else { cases[n].2.clone() };
        let rows = (0..=cases.len()).map(|row| {
            values(&schema, [Value::I64(row as i64)].into_iter().chain((0..cases.len()).map(|n| value(row, n))))
        });
        for (n, outcome) in outcomes(&sink, rows).await.iter().enumerate() {
            let failed = outcome.failure();
            let told = failed.map(|failed| (failed.class(), failed.code()));
            let expected = cases.get(n).map(|case| (Some(ErrorClass::Row), Some(case.4)));
            let column = cases.get(n).map(|case| case.0);
            assert_eq!(told, expected, "row {n} of {column:?}, {strategy:?}: {:?}", failed.and_then(|f| f.error()));
        }
        assert_eq!(read(&sink, "SELECT id FROM t").await, [cases.len().to_string()], "{strategy:?}");
    }
}

async fn lossy_dsn(cases: &[Lossy]) -> Dsn {
    let columns: Vec<String> = cases.iter().enumerate().map(|(n, case)| format!("c{n} {}", case.0)).collect();
    let table = format!("{LOSSY_TYPES} CREATE TABLE t (id bigint PRIMARY KEY, {})", columns.join(","));
    with_parameter(&fresh_dsn(&table).await, "options[lc_monetary]=C")
}

fn lossy_schema(cases: &[Lossy]) -> Schema {
    let builder = Schema::builder("t").column("id", ColumnType::I64);
    let builder = cases.iter().enumerate().fold(builder, |b, (n, case)| b.column(format!("c{n}"), case.1));
    builder.build().unwrap()
}

#[tokio::test]
async fn the_database_converts_values_where_it_may() {
    let cases = lossy_values();
    let dsn = with_parameter(&lossy_dsn(&cases).await, "lossy_values=convert");
    for (id, strategy) in
        [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Staging].into_iter().enumerate()
    {
        let sink = with_strategy(&dsn, strategy).await;
        let schema = lossy_schema(&cases);
        let changed = cases.iter().map(|case| case.3.clone());
        let row = values(&schema, [Value::I64(id as i64)].into_iter().chain(changed));
        assert_eq!(write(&sink, [row]).await, ["written"], "{strategy:?}");
        for (n, case) in cases.iter().enumerate() {
            let stored = read(&sink, &format!("SELECT c{n} FROM t WHERE id = {id}")).await;
            assert_eq!(stored, [case.5], "{}, {strategy:?}", case.0);
        }
    }
}

/// One transaction and one reading of the table for any number of rejected rows: no batch is halved.
#[tokio::test]
async fn refused_values_are_told_by_index_without_halving() {
    let sink = fresh("CREATE TABLE t (id int PRIMARY KEY, v numeric(6,2))").await;
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("v", ColumnType::Decimal).build().unwrap();
    let batch = batchsql_testkit::batch_of((0..100_i64).map(|n| {
        let id = if n % 10 == 3 { i64::MAX } else { n };
        values(&schema, [id.into(), decimal(if n % 10 == 7 { "0.001" } else { "0.01" })])
    }))
    .await;
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, &schema).await.unwrap();
    let written = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap();
    let refused: Vec<(u32, Option<&str>)> = written.rejected.iter().map(|(row, error)| (*row, error.code())).collect();
    let expected = |n| (n % 10 == 3).then_some((n, Some("22003"))).or((n % 10 == 7).then_some((n, Some("22000"))));
    assert_eq!(refused, (0..100).filter_map(expected).collect::<Vec<_>>());
    assert_eq!(read(&sink, "SELECT count(*), count(DISTINCT xmin::text) FROM t").await, ["80|1"]);
    // In an atomic batch, one row rejects all of them.
    let error = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(true)).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Row, Some("22003")));
    // A widened column accepts the rows, once the reading of the table is a second old.
    execute(sink.pg_pool(), "TRUNCATE t; ALTER TABLE t ALTER v TYPE numeric, ALTER id TYPE bigint").await;
    skip(Duration::from_secs(1)).await;
    let error = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Schema);
}

/// A cast to these silently truncates each element.
#[tokio::test]
async fn arrays_whose_elements_would_be_cut_are_refused() {
    for ty in ["name[]", "\"char\"[]"] {
        for column in [ColumnType::Text, ColumnType::Json] {
            let sink = fresh(&format!("CREATE TABLE t (v {ty})")).await;
            let schema = Schema::builder("t").column("v", column).build().unwrap();
            let mut conn = sink.acquire().await.unwrap();
            let error = sink.prepare(&mut conn, &schema).await.unwrap_err();
            assert!(error.to_string().contains("declare the column text[]"), "{ty}: {error}");
        }
    }
}
