//! The type matrix: every column type with its extremes and NULL, on every database. A value is read back
//! unchanged, or `submit` refuses it, or its row is rejected, if that depends on the column of the table.
//! `docs/databases.md` shows the matrix.

use std::collections::BTreeMap;
use std::time::Duration;

use batchsql::exhaustive::Type;
use batchsql::{
    BatchSql, ColumnType, Date, Json, OutcomeKind, PipelineConfig, Schema, Time, Timestamp, TimestampTz, Value,
    ValueRef,
};
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Redis, Sqlite};
use batchsql_suite::database::{Database, TableSpec};
use batchsql_suite::digest::{Canonical, Digest};
use batchsql_testserver::unique;

use super::servers::on;

/// The result for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    ComesBack,
    /// It is stored and cannot be distinguished from `NULL`.
    IsNull,
    /// `submit` refuses it.
    Refused,
    /// The driver or the database rejects its row.
    Rejected,
}

/// The values of a type, each with a name.
fn values(ty: ColumnType) -> Vec<(&'static str, Value)> {
    let decimal = |text: &str| Value::Decimal(text.parse().unwrap());
    let json = |text: &str| Value::Json(text.parse::<Json>().unwrap());
    match ty.exhaustive() {
        Type::Bool => vec![("false", false.into()), ("true", true.into())],
        Type::I16 => vec![("min", i16::MIN.into()), ("zero", 0_i16.into()), ("max", i16::MAX.into())],
        Type::I32 => vec![("min", i32::MIN.into()), ("zero", 0_i32.into()), ("max", i32::MAX.into())],
        Type::I64 => vec![("min", i64::MIN.into()), ("zero", 0_i64.into()), ("max", i64::MAX.into())],
        Type::U64 => vec![
            ("zero", 0_u64.into()),
            ("i64 max", (i64::MAX as u64).into()),
            ("above i64 max", (i64::MAX as u64 + 1).into()),
            ("max", u64::MAX.into()),
        ],
        Type::F32 => vec![
            ("min", f32::MIN.into()),
            ("max", f32::MAX.into()),
            ("smallest", f32::MIN_POSITIVE.into()),
            ("third", (1.0_f32 / 3.0).into()),
            ("NaN", f32::NAN.into()),
            ("infinity", f32::INFINITY.into()),
            ("-infinity", f32::NEG_INFINITY.into()),
        ],
        Type::F64 => vec![
            ("min", f64::MIN.into()),
            ("max", f64::MAX.into()),
            ("smallest", f64::MIN_POSITIVE.into()),
            ("third", (1.0_f64 / 3.0).into()),
            ("tenth", 0.1_f64.into()),
            ("NaN", f64::NAN.into()),
            ("infinity", f64::INFINITY.into()),
            ("-infinity", f64::NEG_INFINITY.into()),
        ],
        Type::Decimal => vec![
            ("zero", decimal("0")),
            ("small", decimal("-0.000000000000000000000000000001")),
            ("35 digits", decimal("99999999999999999999999999999999999.999999999999999999999999999999")),
            ("zeros", decimal("1.500")),
            ("10000", decimal("10000")),
            ("0.0001", decimal("0.0001")),
            ("40 digits", decimal("1234567890123456789012345678901234567890")),
            ("31 places", decimal("0.1234567890123456789012345678901")),
        ],
        Type::Text => vec![
            ("empty", "".into()),
            ("spaces", "  a  ".into()),
            ("quotes", "'\"`\\;--\n\t\r%_".into()),
            ("scripts", "été текст 事件 🦀 \u{10FFFF}".into()),
            ("1 MB", "x".repeat(1 << 20).into()),
            ("NUL", "a\0b".into()),
        ],
        Type::Bytes => vec![
            ("empty", Vec::<u8>::new().into()),
            ("every byte", (0..=255).collect::<Vec<u8>>().into()),
            ("1 MB", vec![0xff_u8; 1 << 20].into()),
        ],
        Type::Uuid => vec![
            ("nil", Value::Uuid([0; 16])),
            ("max", Value::Uuid([0xff; 16])),
            ("some", Value::Uuid(*b"0123456789abcdef")),
        ],
        Type::Json => vec![
            ("null", json("null")),
            ("nested", json(r#"{"a":[1,2.5,null,{"b":"été 🦀 \" \\ \n"}],"":false}"#)),
            ("list", vec![Some("a, \"b\""), None].into()),
            ("number", json("-12345678901234")),
            ("digits", json("12345678901234567890.123")),
            ("string", json(r#""a""#)),
            ("NUL", json("\"a\\u0000b\"")),
        ],
        Type::Date => vec![
            ("min", Date::MIN.into()),
            ("1969", Date::from_ymd(1969, 12, 31).into()),
            ("leap day", Date::from_ymd(2024, 2, 29).into()),
            ("max", Date::MAX.into()),
        ],
        Type::Time => vec![
            ("min", Time::MIN.into()),
            ("noon", Time::from_hms_micro(12, 0, 0, 1).into()),
            ("max", Time::MAX.into()),
        ],
        Type::Timestamp => vec![
            ("min", Timestamp::MIN.into()),
            ("1969", Timestamp::from_micros_since_epoch(-1).into()),
            ("1970", Timestamp::from_micros_since_epoch(0).into()),
            ("max", Timestamp::MAX.into()),
        ],
        Type::TimestampTz => vec![
            ("min", TimestampTz::MIN.into()),
            ("1969", TimestampTz::from_micros_since_epoch(-1).into()),
            ("1970", TimestampTz::from_micros_since_epoch(0).into()),
            ("max", TimestampTz::MAX.into()),
        ],
    }
}

/// The result for a value; all values not listed here are read back unchanged.
fn fate(database: DatabaseName, ty: ColumnType, value: &str) -> Fate {
    use ColumnType as T;
    match (database, ty, value) {
        (Sqlite, T::U64, "above i64 max" | "max") => Fate::Refused,
        (Sqlite, T::F32 | T::F64, "NaN") => Fate::Refused,
        (Mysql, T::F32 | T::F64, "NaN" | "infinity" | "-infinity") => Fate::Refused,
        // JSON has neither, and rows are JSON documents.
        (Redis, T::F32 | T::F64, "NaN" | "infinity" | "-infinity") => Fate::Refused,
        // In a document both are the JSON `null`.
        (Redis, T::Json, "null") => Fate::IsNull,
        (Postgres, T::Text, "NUL") => Fate::Refused,
        // jsonb has no NUL character, not even escaped.
        (Postgres, T::Json, "NUL") => Fate::Rejected,
        // The column is DECIMAL(65,30), the maximum.
        (Mysql, T::Decimal, "40 digits" | "31 places") => Fate::Rejected,
        _ => Fate::ComesBack,
    }
}

/// The rows of a table by number.
async fn content(database: &dyn Database, schema: &Schema) -> BTreeMap<i128, Digest> {
    let mut rows = BTreeMap::new();
    let mut add = |values: &[Canonical<'_>]| {
        let [Canonical::Int(id), value] = values else { panic!("{} values", values.len()) };
        let mut digest = Digest::default();
        digest.add_canonical([*value]);
        rows.insert(*id, digest);
    };
    database.read(schema, &mut add).await.unwrap();
    rows
}

async fn matrix(name: DatabaseName) {
    on(name, async |own| {
        let config = PipelineConfig::default().retry_for(Duration::from_secs(5));
        let db = BatchSql::builder(own.database.sink()).config(config).start().unwrap();
        for ty in ColumnType::ALL {
            // Redis has no separate databases here, so the unique name separates tests.
            let schema = Schema::builder(format!("batchsql_suite_{}", unique(ty.name())));
            let schema = schema.column("id", ColumnType::I64).nullable("v", ty);
            let schema = schema.on_conflict(batchsql::Conflict::update(["id"])).build().unwrap();
            own.database.create(&TableSpec::new(schema.clone(), &["id"])).await.unwrap();
            let mut all = vec![("NULL", Value::Null)];
            all.extend(values(ty));
            let mut receipts = Vec::new();
            for (id, (value_name, value)) in all.iter().enumerate() {
                let row = schema.row().set("id", id as i64).unwrap().set("v", value.clone()).unwrap().finish().unwrap();
                let receipt = db.submit_tracked(&row).await;
                let cell = format!("{name:?} {ty} {value_name}");
                let refused = fate(name, ty, value_name) == Fate::Refused;
                assert_eq!(receipt.is_err(), refused, "{cell}: {:?}", receipt.err());
                receipts.extend(receipt.ok().map(|receipt| (id, cell, receipt)));
            }
            db.flush().await.unwrap();
            let found = content(&*own.database, &schema).await;
            let mut rejected = 0;
            for (id, cell, receipt) in receipts {
                let (value_name, value) = &all[id];
                let outcome = receipt.await;
                let rejects = fate(name, ty, value_name) == Fate::Rejected;
                let expected = if rejects { OutcomeKind::Rejected } else { OutcomeKind::Written };
                assert_eq!(outcome.kind(), expected, "{cell}: {outcome:?}");
                rejected += usize::from(rejects);
                let mut submitted = Digest::default();
                let is_null = fate(name, ty, value_name) == Fate::IsNull;
                submitted.add_values([if is_null { ValueRef::Null } else { value.as_ref() }]);
                assert_eq!(found.get(&(id as i128)), (!rejects).then_some(&submitted), "{cell} comes back as it was");
            }
            let refused = all.iter().filter(|(value, _)| fate(name, ty, value) == Fate::Refused).count();
            assert_eq!(found.len(), all.len() - rejected - refused, "{name:?} {ty}");
            own.database.drop_table(&schema).await.unwrap();
        }
        assert_eq!(db.close(Duration::from_secs(10)).await.balance.in_flight(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_every_value() {
    matrix(Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_every_value() {
    matrix(Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_keeps_every_value() {
    matrix(Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_every_value() {
    matrix(Redis).await;
}

/// A list needs a column that keeps it: array columns of PostgreSQL, else JSON. In a number column it is refused when the
/// table is read, before a row is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_refused_for_a_column_of_numbers() {
    for name in [Mysql, Sqlite] {
        on(name, async |own| {
            let table = format!("batchsql_suite_{}", unique("list"));
            let schema = |ty| Schema::builder(&*table).column("id", ColumnType::I64).nullable("v", ty).build().unwrap();
            let numbers = schema(ColumnType::I64);
            own.database.create(&TableSpec::new(numbers.clone(), &["id"])).await.unwrap();
            let config = PipelineConfig::default().park_for(Duration::ZERO);
            let db = BatchSql::builder(own.database.sink()).config(config).start().unwrap();
            let lists = schema(ColumnType::Json);
            let error = db.prepare(&lists).await.unwrap_err().to_string();
            assert!(error.contains("json"), "{name:?}: {error}");
            let row = lists.row().set("id", 1_i64).unwrap().set("v", vec![1_i64, 2]).unwrap().finish().unwrap();
            let receipt = db.submit_tracked(&row).await.unwrap();
            assert_eq!(receipt.await.kind(), OutcomeKind::Rejected, "{name:?}");
            assert_eq!(content(&*own.database, &numbers).await.len(), 0, "{name:?}");
            db.close(Duration::from_secs(10)).await;
            own.database.drop_table(&numbers).await.unwrap();
        })
        .await;
    }
}

/// The guide shows the values that are not read back unchanged; the tests above check them.
#[test]
fn the_guide_has_these_exceptions() {
    let mut table = "| database | type | value | |\n|---|---|---|---|\n".to_owned();
    for (database, shown) in [(Sqlite, "SQLite"), (Postgres, "PostgreSQL"), (Mysql, "MySQL"), (Redis, "Redis document")]
    {
        for ty in ColumnType::ALL {
            for (value, _) in values(ty) {
                let what = match fate(database, ty, value) {
                    Fate::ComesBack => continue,
                    Fate::IsNull => "becomes NULL",
                    Fate::Refused => "refused by `submit`",
                    Fate::Rejected => "its row is rejected",
                };
                table += &format!("| {shown} | {ty} | {value} | {what} |\n");
            }
        }
    }
    let guide = include_str!("../../../../../docs/databases.md");
    assert!(guide.contains(&table), "docs/databases.md should have\n{table}");
}
