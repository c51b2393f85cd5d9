//! Every type through every strategy, read back by SQL.

use batchsql_core::{
    ColumnType, Conflict, Date, Decimal, ErrorClass, Json, Schema, TableName, Time, Timestamp, TimestampTz, Value,
};
use batchsql_postgres::Strategy;

use crate::support::{fresh, fresh_dsn, outcomes, pipeline, read, row, schema, values, with_strategy, write};

const ALL: [Strategy; 5] = [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Copy, Strategy::Staging];

/// Values of one type in a column, and the server's text for each.
struct Case {
    column: &'static str,
    ty: ColumnType,
    values: Vec<(Value, String)>,
}

fn case<V: Into<Value>>(
    column: &'static str,
    ty: ColumnType,
    values: impl IntoIterator<Item = (V, &'static str)>,
) -> Case {
    let values = values.into_iter().map(|(value, shown)| (value.into(), shown.to_owned())).collect();
    Case { column, ty, values }
}

fn decimal(text: &str) -> Value {
    text.parse::<Decimal>().unwrap().into()
}

fn json(text: &str) -> Value {
    text.parse::<Json>().unwrap().into()
}

/// Types that COPY can also write.
fn binary_cases() -> Vec<Case> {
    let long = format!("{}.{}", "9".repeat(1_000), "1".repeat(1_000));
    let mut cases = vec![
        case("bool", ColumnType::Bool, [(true, "t"), (false, "f")]),
        case("smallint", ColumnType::I16, [(i16::MIN, "-32768"), (i16::MAX, "32767")]),
        case("integer", ColumnType::I16, [(i16::MIN, "-32768"), (0, "0")]),
        case("integer", ColumnType::I32, [(i32::MIN, "-2147483648"), (i32::MAX, "2147483647")]),
        case("smallint", ColumnType::I64, [(-32_768_i64, "-32768"), (32_767, "32767")]),
        case("bigint", ColumnType::I64, [(i64::MIN, "-9223372036854775808"), (i64::MAX, "9223372036854775807")]),
        case("bigint", ColumnType::U64, [(0_u64, "0"), (i64::MAX as u64, "9223372036854775807")]),
        case("numeric", ColumnType::U64, [(u64::MAX, "18446744073709551615"), (10_000, "10000"), (0, "0")]),
        case("numeric", ColumnType::I64, [(i64::MIN, "-9223372036854775808"), (-10_000, "-10000")]),
        case("double precision", ColumnType::I32, [(i32::MIN, "-2147483648"), (7, "7")]),
        case("real", ColumnType::F32, [(f32::MAX, "3.4028235e+38"), (-0.0, "-0"), (f32::NAN, "NaN")]),
        case("double precision", ColumnType::F32, [(0.5_f32, "0.5"), (f32::INFINITY, "Infinity")]),
        case("double precision", ColumnType::F64, [(f64::MIN_POSITIVE, "2.2250738585072014e-308"), (f64::NAN, "NaN")]),
        case("numeric(6,2)", ColumnType::Decimal, [(decimal("-9999.99"), "-9999.99"), (decimal("1.0500"), "1.05")]),
        case(
            "numeric",
            ColumnType::Decimal,
            ["0", "0.00", "-1", "10000", "0.00001", "-12345678901234567890.10", "100000000.00000001", "9999.9999"]
                .map(|text| (decimal(text), text)),
        ),
        case("text", ColumnType::Decimal, [(decimal("-007.10"), "-007.10")]),
        case("text", ColumnType::Text, [("", ""), ("äöü 事件 \\ \t \"", "äöü 事件 \\ \t \"")]),
        case("varchar(4)", ColumnType::Text, [("äöüß", "äöüß"), ("ab  ", "ab  ")]),
        case("char(4)", ColumnType::Text, [("ab", "ab  ")]),
        case("name", ColumnType::Text, [("pg_class", "pg_class")]),
        case("bytea", ColumnType::Bytes, [(&[0_u8, 255, 92][..], "\\x00ff5c"), (&[], "\\x")]),
        case("uuid", ColumnType::Uuid, [(Value::Uuid([0xAB; 16]), "abababab-abab-abab-abab-abababababab")]),
        case("json", ColumnType::Json, [(json("{\"b\": 1,  \"a\":2}"), "{\"b\": 1,  \"a\":2}")]),
        case("jsonb", ColumnType::Json, [(json("{\"b\":1,\"a\":[null]}"), "{\"a\": [null], \"b\": 1}")]),
        case("jsonb", ColumnType::Text, [("[1]", "[1]")]),
        case("text", ColumnType::Json, [(json("[1, 2]"), "[1, 2]")]),
        case("date", ColumnType::Date, [(Date::MIN, "0001-01-01"), (Date::MAX, "9999-12-31")]),
        case("time", ColumnType::Time, [(Time::MIN, "00:00:00"), (Time::MAX, "23:59:59.999999")]),
        case(
            "timestamp",
            ColumnType::Timestamp,
            [(Timestamp::MIN, "0001-01-01 00:00:00"), (Timestamp::MAX, "9999-12-31 23:59:59.999999")],
        ),
        case(
            "timestamptz",
            ColumnType::TimestampTz,
            [(TimestampTz::MIN, "0001-01-01 00:00:00+00"), (TimestampTz::MAX, "9999-12-31 23:59:59.999999+00")],
        ),
        // As text, which has infinity.
        case(
            "date",
            ColumnType::Text,
            [
                ("infinity", "infinity"),
                ("-infinity", "-infinity"),
                ("2026-01-31", "2026-01-31"),
                ("0001-02-29 BC", "0001-02-29 BC"),
                ("4714-11-24 BC", "4714-11-24 BC"),
            ],
        ),
        case(
            "timestamp",
            ColumnType::Text,
            [
                ("-infinity", "-infinity"),
                ("infinity", "infinity"),
                ("2026-01-31T12:00:00.5", "2026-01-31 12:00:00.5"),
                ("2026-01-31 12:00", "2026-01-31 12:00:00"),
                ("0044-03-15 12:00:00 BC", "0044-03-15 12:00:00 BC"),
            ],
        ),
        case(
            "timestamptz",
            ColumnType::Text,
            [
                ("infinity", "infinity"),
                ("-infinity", "-infinity"),
                ("2026-01-31T12:00:00+02:00", "2026-01-31 10:00:00+00"),
                ("2026-01-31 12:00:00+00", "2026-01-31 12:00:00+00"),
                ("2026-01-31 12:00:00.5 +0530", "2026-01-31 06:30:00.5+00"),
                ("2026-01-31 12:00-03:30", "2026-01-31 15:30:00+00"),
                ("1900-01-01 00:00:00+00:19:32", "1899-12-31 23:40:28+00"),
                ("0001-12-31 23:59:59-15:59 BC", "0001-01-01 15:58:59+00"),
                ("4714-11-24 00:00:00+00 BC", "4714-11-24 00:00:00+00 BC"),
            ],
        ),
        case("mood", ColumnType::Text, [("sad", "sad"), ("it's ok", "it's ok")]),
        case("positive", ColumnType::I64, [(1_i64, "1")]),
        case("short", ColumnType::Text, [("ab", "ab")]),
        case("\"Odd type\"", ColumnType::Text, [("x", "x")]),
    ];
    cases.push(Case {
        column: "numeric",
        ty: ColumnType::Decimal,
        values: vec![(decimal(&long), long.clone()), (decimal(&format!("-{long}")), format!("-{long}"))],
    });
    cases
}

/// Types that only the server can parse from text.
fn text_cases() -> Vec<Case> {
    vec![
        case("inet", ColumnType::Text, [("10.0.0.1", "10.0.0.1"), ("::1", "::1")]),
        case("interval", ColumnType::Text, [("1 day 2 hours", "1 day 02:00:00")]),
        case("tsvector", ColumnType::Text, [("a fat cat", "'a' 'cat' 'fat'")]),
        case("int4range", ColumnType::Text, [("[1,5]", "[1,6)")]),
        case("point", ColumnType::Text, [("(1,2)", "(1,2)")]),
        case("bit(3)", ColumnType::Text, [("101", "101")]),
        case("pair", ColumnType::Text, [("(1,\"a b\")", "(1,\"a b\")")]),
        case("xml", ColumnType::Text, [("<a/>", "<a/>")]),
        case(
            "uuid",
            ColumnType::Text,
            [("abababab-abab-abab-abab-abababababab", "abababab-abab-abab-abab-abababababab")],
        ),
        case("int[]", ColumnType::Text, [("{1,NULL,3}", "{1,NULL,3}"), ("{{1},{2}}", "{{1},{2}}"), ("{}", "{}")]),
        case("text[]", ColumnType::Text, [("{\"a,b\",c}", "{\"a,b\",c}")]),
        case("int[]", ColumnType::Json, [(json("[1,null,3]"), "{1,NULL,3}"), (json("[]"), "{}")]),
        case(
            "text[]",
            ColumnType::Json,
            [(json("[\"a,\\\"b\\\"\", \"NULL\", null]"), "{\"a,\\\"b\\\"\",\"NULL\",NULL}")],
        ),
        case("mood[]", ColumnType::Json, [(json("[\"sad\"]"), "{sad}")]),
        // A text that looks like another value stays a text, and null stays a value.
        case(
            "jsonb[]",
            ColumnType::Json,
            [(
                json(r#"["1",1,"true",true,null,{"a":[1]},[2]]"#),
                r#"{"\"1\"",1,"\"true\"",true,"null","{\"a\": [1]}",[2]}"#,
            )],
        ),
        case(
            "json[]",
            ColumnType::Json,
            [(json(r#"["1",null,{"b":1,"a":[]}]"#), r#"{"\"1\"","null","{\"b\":1,\"a\":[]}"}"#)],
        ),
        case("documents", ColumnType::Json, [(json(r#"["1",{}]"#), r#"{"\"1\"","{}"}"#)]),
        case("numeric[]", ColumnType::Json, [(json("[12345678901234567890.123]"), "{12345678901234567890.123}")]),
    ]
}

const TYPES: &str = "CREATE TYPE mood AS ENUM ('sad', 'it''s ok'); CREATE DOMAIN document AS jsonb;
    CREATE DOMAIN documents AS document[]; CREATE DOMAIN positive AS bigint CHECK (value > 0);
                     CREATE DOMAIN shorter AS varchar(3); CREATE DOMAIN short AS shorter;
                     CREATE TYPE \"Odd type\" AS ENUM ('x'); CREATE TYPE pair AS (a int, b text);";

async fn check_round_trips(cases: Vec<Case>, strategies: &[Strategy], conflict: Conflict) {
    let columns: Vec<String> = cases.iter().enumerate().map(|(n, case)| format!("c{n} {}", case.column)).collect();
    let table = format!("{TYPES} CREATE TABLE t (id bigint PRIMARY KEY, {})", columns.join(","));
    let builder = Schema::builder("t").column("id", ColumnType::I64);
    let builder = cases.iter().enumerate().fold(builder, |b, (n, case)| b.nullable(format!("c{n}"), case.ty));
    let schema = builder.on_conflict(conflict).build().unwrap();
    // One row more than the longest case has values: all NULL.
    let rows = cases.iter().map(|case| case.values.len()).max().unwrap() + 1;
    for strategy in strategies {
        let sink = with_strategy(&fresh_dsn(&table).await, *strategy).await;
        let sent = (0..rows).map(|n| {
            let of_case = |case: &Case| case.values.get(n).map_or(Value::Null, |(value, _)| value.clone());
            values(&schema, [Value::I64(n as i64)].into_iter().chain(cases.iter().map(of_case)))
        });
        for outcome in outcomes(&sink, sent).await {
            assert!(outcome.is_written(), "{strategy:?}: {outcome:?} {:?}", outcome.failure().and_then(|f| f.error()));
        }
        for (n, case) in cases.iter().enumerate() {
            let stored = read(&sink, &format!("SELECT c{n} FROM t ORDER BY id")).await;
            let shown = case.values.iter().map(|(_, shown)| shown.clone());
            let expected: Vec<String> = shown.chain(std::iter::repeat("NULL".to_owned())).take(rows).collect();
            assert_eq!(stored, expected, "{} values in a column {:?}, {strategy:?}", case.ty, case.column);
        }
    }
}

#[tokio::test]
async fn every_type_is_stored_exactly_by_every_strategy() {
    check_round_trips(binary_cases(), &ALL, Conflict::none()).await;
    let by_rule = [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Staging];
    check_round_trips(binary_cases(), &by_rule, Conflict::replace(["id"])).await;
}

#[tokio::test]
async fn text_and_json_become_what_the_column_reads() {
    let strategies = [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Staging];
    check_round_trips(text_cases(), &strategies, Conflict::none()).await;
    check_round_trips(text_cases(), &strategies, Conflict::ignore(["id"])).await;
}

#[tokio::test]
async fn values_that_a_column_cannot_hold_reject_exactly_their_rows() {
    let check = async |column: &str, ty: ColumnType, good: Value, bad: Value, code: &str| {
        for strategy in ALL {
            let table = format!("{TYPES} CREATE TABLE t (id bigint PRIMARY KEY, v {column})");
            let sink = with_strategy(&fresh_dsn(&table).await, strategy).await;
            let schema = Schema::builder("t").column("id", ColumnType::I64).column("v", ty).build().unwrap();
            if strategy == Strategy::Copy && pipeline(&sink).prepare(&schema).await.is_err() {
                continue;
            }
            let rows =
                (0..40_i64).map(|n| values(&schema, [n.into(), if n == 23 { bad.clone() } else { good.clone() }]));
            for (n, outcome) in outcomes(&sink, rows).await.iter().enumerate() {
                let failed = outcome.failure();
                let told = failed.map(|failed| (failed.class(), failed.code()));
                let expected = (n == 23).then_some((Some(ErrorClass::Row), Some(code)));
                let error = failed.and_then(|failed| failed.error()).map(ToString::to_string);
                assert_eq!(told, expected, "row {n} of {column}, {strategy:?}: {error:?}");
                let names_column = error.as_ref().is_none_or(|error| error.contains("column \"v\""));
                // Too long for the length of the column: a length is not a part of its type.
                let has_no_name = matches!(code, "22001" | "42622" | "23514") || column.contains('(');
                assert!(names_column || has_no_name, "{column}, {strategy:?}: {error:?}");
            }
            assert_eq!(read(&sink, "SELECT count(*), count(*) FILTER (WHERE id = 23) FROM t").await, ["39|0"]);
        }
    };
    check("smallint", ColumnType::I64, 1_i64.into(), 32_768_i64.into(), "22003").await;
    check("integer", ColumnType::I64, 1_i64.into(), i64::MIN.into(), "22003").await;
    check("bigint", ColumnType::U64, 1_u64.into(), u64::MAX.into(), "22003").await;
    check("numeric(4,1)", ColumnType::Decimal, decimal("999.9"), decimal("1000"), "22003").await;
    check("varchar(3)", ColumnType::Text, "abc".into(), "abcd".into(), "22001").await;
    check("char(3)", ColumnType::Text, "abc".into(), "abcd".into(), "22001").await;
    check("short", ColumnType::Text, "abc".into(), "abcd".into(), "22001").await;
    check("name", ColumnType::Text, "abc".into(), "x".repeat(64).into(), "42622").await;
    check("mood", ColumnType::Text, "sad".into(), "glad".into(), "22P02").await;
    check("jsonb", ColumnType::Text, "{}".into(), "{".into(), "22P02").await;
    check("jsonb", ColumnType::Json, json("{}"), json("\"\\u0000\""), "22P05").await;
    check("inet", ColumnType::Text, "::1".into(), "nowhere".into(), "22P02").await;
    // Texts of which the server knows the meaning, but only with settings of the session.
    check("date", ColumnType::Text, "infinity".into(), "31.01.2026".into(), "22007").await;
    check("timestamp", ColumnType::Text, "infinity".into(), "2026-01-31T12:00:00Z".into(), "22007").await;
    check("timestamptz", ColumnType::Text, "-infinity".into(), "2026-01-31T12:00:00".into(), "22007").await;
    check("int[]", ColumnType::Json, json("[1]"), json("{\"a\":1}"), "22023").await;
    check("int[]", ColumnType::Json, json("[1]"), json("[[1]]"), "22P02").await;
    check("text[]", ColumnType::Json, json("[\"[\"]"), json("[\"a\", {}]"), "22P02").await;
    check("text[]", ColumnType::Json, json("[]"), json("[[\"a\"]]"), "22P02").await;
    check("positive", ColumnType::I64, 1_i64.into(), 0_i64.into(), "23514").await;
}

#[tokio::test]
async fn text_with_a_nul_is_refused_at_admission() {
    let sink = fresh("CREATE TABLE t (id bigint, note text)").await;
    let db = pipeline(&sink);
    let error = db.submit(&row(&schema(Conflict::none()), 1, "a\0b")).await.unwrap_err();
    assert!(error.row_error().unwrap().is_out_of_range(), "{error}");
    db.submit(&row(&schema(Conflict::none()), 2, "ab")).await.unwrap();
    assert_eq!(db.flush().await.unwrap().written(), 1);
}

#[tokio::test]
async fn hostile_and_qualified_names_are_only_names() {
    let name = r#"a"; DROP TABLE t; -- $1 '%s' {} ä."#;
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    for strategy in ALL {
        let ns = batchsql_testserver::unique("odd \" name");
        let quoted_ns = format!("\"{}\"", ns.replace('"', "\"\""));
        let table = format!(
            "CREATE SCHEMA {quoted_ns}; CREATE TYPE {quoted_ns}.\"e\"\"\" AS ENUM ('x');
             CREATE TABLE {quoted_ns}.{quoted} ({quoted} bigint PRIMARY KEY, \"ID\" {quoted_ns}.\"e\"\"\")"
        );
        let sink = with_strategy(&fresh_dsn(&table).await, strategy).await;
        let conflict = if strategy == Strategy::Copy { Conflict::none() } else { Conflict::ignore([name]) };
        let schema = Schema::builder(TableName::qualified(&*ns, name))
            .column("ID", ColumnType::Text)
            .column(name, ColumnType::I64)
            .on_conflict(conflict)
            .build()
            .unwrap();
        let rows = [values(&schema, ["x".into(), 1_i64.into()])];
        assert_eq!(write(&sink, rows).await, ["written"], "{strategy:?}");
        assert_eq!(read(&sink, &format!("SELECT * FROM {quoted_ns}.{quoted}")).await, ["1|x"], "{strategy:?}");
    }
}

#[tokio::test]
async fn wide_tables_are_split_by_the_bind_limit() {
    const COLUMNS: i64 = 1_000;
    let columns: Vec<String> = (0..COLUMNS).map(|n| format!("c{n} int")).collect();
    let table = format!("CREATE TABLE wide ({})", columns.join(","));
    let schema = (0..COLUMNS).fold(Schema::builder("wide"), |b, n| b.column(format!("c{n}"), ColumnType::I32));
    let schema = schema.build().unwrap();
    for strategy in ALL {
        let sink = with_strategy(&fresh_dsn(&table).await, strategy).await;
        // A statement binds 65,535 values, so 150 rows of values take several.
        let rows = (0..150).map(|id| values(&schema, (0..COLUMNS as i32).map(|n| Value::I32(id * 10_000 + n))));
        assert_eq!(write(&sink, rows).await, ["written"; 150], "{strategy:?}");
        let stored = read(&sink, "SELECT count(*), min(c0), max(c999) FROM wide").await;
        assert_eq!(stored, ["150|0|1490999"], "{strategy:?}");
    }
}
