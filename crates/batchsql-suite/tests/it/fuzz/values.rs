//! Values of every type on real databases, in batches of random rows: what was written is read back unchanged, and what is
//! refused or rejected is not there. On PostgreSQL it is the encoder of COPY, on Redis that of commands.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use batchsql::exhaustive::Type;
use batchsql::{
    BatchSql, ColumnType, Conflict, Date, Json, OutcomeKind, PipelineConfig, Schema, Time, Timestamp, TimestampTz,
    Value,
};
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Redis, Sqlite};
use batchsql_suite::database::{Database, TableSpec};
use batchsql_suite::digest::Digest;
use batchsql_suite::digest::{Canonical, RowDigest};
use batchsql_testserver::unique;
use proptest::prelude::*;

use super::{check_each, config};
use crate::matrix::servers::on;

/// Rows of a case. As many as it takes for a COPY, and a search for bad rows.
const ROWS: usize = 25;

fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        3 => prop::char::range(' ', '~'),
        2 => prop::sample::select("\"'\\\n\r\t\u{1}\u{7f}".chars().collect::<Vec<_>>()),
        1 => any::<char>().prop_filter("most databases refuse NUL", |character| *character != '\0'),
    ];
    prop::collection::vec(character, 0..40).prop_map(String::from_iter)
}

/// JSON without `null` at the top, which Redis cannot distinguish from `NULL`, and with numbers that have one form.
fn json() -> impl Strategy<Value = String> {
    let string = || text().prop_map(|text| serde_json::to_string(&text).expect("text is JSON"));
    let leaf = prop_oneof![any::<i32>().prop_map(|number| number.to_string()), Just("true".to_owned()), string()];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        let member = (string(), inner.clone()).prop_map(|(name, value)| (name, value));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            prop::collection::btree_map("[a-z\"\\\\é]{0,4}", member, 0..4).prop_map(|members| {
                let name = |name: &String| serde_json::to_string(name).expect("text is JSON");
                let members: Vec<String> =
                    members.iter().map(|(key, (_, value))| format!("{}:{value}", name(key))).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// A number whose text is the one that databases return, but for zeros at its end.
fn decimal() -> impl Strategy<Value = String> {
    let digits = |most: usize| prop::collection::vec(0_u8..10, 1..most);
    (any::<bool>(), digits(40), prop::option::of(digits(32))).prop_map(|(is_negative, whole, fraction)| {
        let text = |digits: &[u8]| digits.iter().map(|digit| char::from(b'0' + digit)).collect::<String>();
        let whole = text(&whole);
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let number = fraction.map_or_else(|| whole.to_owned(), |fraction| format!("{whole}.{}", text(&fraction)));
        let is_zero = number.chars().all(|character| matches!(character, '0' | '.'));
        if is_negative && !is_zero { format!("-{number}") } else { number }
    })
}

/// Numbers that every database keeps; without the sign of zero, which SQLite drops.
fn float() -> impl Strategy<Value = f64> {
    use prop::num::f64::{INFINITE, NEGATIVE, NORMAL, POSITIVE, QUIET_NAN};
    prop_oneof![20 => POSITIVE | NEGATIVE | NORMAL, 1 => INFINITE | POSITIVE, 1 => QUIET_NAN.prop_map(|_| f64::NAN), 1 => Just(0.0)]
}

/// A value of a type.
fn value(ty: ColumnType) -> BoxedStrategy<Value> {
    let micros = |least: i64, most: i64| prop_oneof![least..=most, -5_i64..5, Just(least), Just(most)];
    match ty.exhaustive() {
        Type::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Type::I16 => any::<i16>().prop_map(Value::from).boxed(),
        Type::I32 => any::<i32>().prop_map(Value::from).boxed(),
        Type::I64 => any::<i64>().prop_map(Value::from).boxed(),
        Type::U64 => any::<u64>().prop_map(Value::from).boxed(),
        Type::F32 => float()
            .prop_map(|number| if number.is_nan() { f32::NAN } else { (number % 1e30) as f32 + 0.0 })
            .prop_map(Value::from)
            .boxed(),
        Type::F64 => float().prop_map(Value::from).boxed(),
        Type::Decimal => decimal().prop_map(|text| Value::Decimal(text.parse().expect("a number"))).boxed(),
        Type::Text => text().prop_map(Value::from).boxed(),
        Type::Bytes => prop::collection::vec(any::<u8>(), 0..60).prop_map(Value::from).boxed(),
        Type::Uuid => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
        Type::Json => json().prop_map(|text| Value::Json(text.parse::<Json>().expect("JSON"))).boxed(),
        Type::Date => (Date::MIN.days_since_epoch()..=Date::MAX.days_since_epoch())
            .prop_map(|days| Date::from_days_since_epoch(days).into())
            .boxed(),
        Type::Time => micros(Time::MIN.micros_since_midnight(), Time::MAX.micros_since_midnight())
            .prop_filter_map("a time of a day", |micros| {
                (micros >= 0).then(|| Time::from_micros_since_midnight(micros).into())
            })
            .boxed(),
        Type::Timestamp => micros(Timestamp::MIN.micros_since_epoch(), Timestamp::MAX.micros_since_epoch())
            .prop_map(|micros| Timestamp::from_micros_since_epoch(micros).into())
            .boxed(),
        Type::TimestampTz => micros(TimestampTz::MIN.micros_since_epoch(), TimestampTz::MAX.micros_since_epoch())
            .prop_map(|micros| TimestampTz::from_micros_since_epoch(micros).into())
            .boxed(),
    }
}

/// A value of each type, or `NULL`.
fn row() -> impl Strategy<Value = Vec<Value>> {
    let column = |ty: ColumnType| prop_oneof![4 => value(ty), 1 => Just(Value::Null)];
    ColumnType::ALL.map(column).to_vec()
}

fn digest(row: &RowDigest) -> Digest {
    let mut digest = Digest::default();
    digest.add(row);
    digest
}

/// The rows of a table by number.
async fn content(database: &dyn Database, schema: &Schema) -> BTreeMap<i128, Digest> {
    let mut rows = BTreeMap::new();
    let mut add = |values: &[Canonical<'_>]| {
        let (Canonical::Int(id), rest) = (values[0], &values[1..]) else { panic!("a row without a number") };
        let mut row = RowDigest::default();
        rest.iter().for_each(|value| row.add(*value));
        rows.insert(id, digest(&row));
    };
    database.read(schema, &mut add).await.unwrap();
    rows
}

/// Adds the rows of a case, and those that were written.
async fn check(
    name: DatabaseName,
    database: &dyn Database,
    rows: Vec<Vec<Value>>,
    sums: &Cell<(usize, usize)>,
) -> Result<(), TestCaseError> {
    let mut schema = Schema::builder(format!("batchsql_suite_{}", unique("fuzz"))).column("id", ColumnType::I64);
    for ty in ColumnType::ALL {
        schema = schema.nullable(format!("v_{}", ty.name()), ty);
    }
    // A table without a rule is written by COPY; Redis has documents only with a key.
    let rule = if name == Redis { Conflict::update(["id"]) } else { Conflict::none() };
    let schema = schema.on_conflict(rule).build().unwrap();
    database.create(&TableSpec::new(schema.clone(), &["id"])).await.unwrap();
    let config = PipelineConfig::default().retry_for(Duration::from_secs(5));
    let db = BatchSql::builder(database.sink()).config(config).start().unwrap();
    let mut receipts = BTreeMap::new();
    for (id, values) in rows.iter().enumerate() {
        let id = id as i64;
        let all = [Value::I64(id)].into_iter().chain(values.iter().cloned());
        let row = schema.row().set_all(all).unwrap().finish();
        // A value that no database of this kind can have is refused before it is a row.
        if let Ok(row) = row
            && let Ok(receipt) = db.submit_tracked(&row).await
        {
            receipts.insert(id, receipt);
        }
    }
    db.flush().await.unwrap();
    let found = content(database, &schema).await;
    let mut written = 0;
    for (id, values) in rows.iter().enumerate() {
        let there = found.get(&(id as i128));
        let outcome = match receipts.remove(&(id as i64)) {
            Some(receipt) => Some(receipt.await),
            None => None,
        };
        match outcome.as_ref().map(batchsql::Outcome::kind) {
            Some(OutcomeKind::Written) => {
                let mut row = RowDigest::default();
                values.iter().for_each(|value| row.add_submitted(value.as_ref()));
                prop_assert_eq!(there, Some(&digest(&row)), "{:?} {:?}", name, values);
                written += 1;
            }
            None | Some(OutcomeKind::Rejected) => prop_assert_eq!(there, None, "{:?} {:?}", name, outcome),
            Some(other) => prop_assert!(false, "{:?} {:?} {:?}", name, other, outcome),
        }
    }
    prop_assert_eq!(found.len(), written);
    prop_assert!(db.close(Duration::from_secs(30)).await.balance.in_flight() == 0);
    database.drop_table(&schema).await.unwrap();
    let (all, all_written) = sums.get();
    sums.set((all + rows.len(), all_written + written));
    Ok(())
}

async fn any_values(name: DatabaseName) {
    on(name, async |own| {
        let rows = prop::collection::vec(row(), 1..ROWS);
        let sums = Cell::new((0, 0));
        check_each(&rows, config(25, file!()), async |rows| check(name, &*own.database, rows, &sums).await);
        // Most of the values are ones that each database keeps.
        let (all, written) = sums.get();
        assert!(written > all / 5, "{written} of {all} rows of {name:?} were written");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_random_values() {
    any_values(Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_random_values() {
    any_values(Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_keeps_random_values() {
    any_values(Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_random_values() {
    any_values(Redis).await;
}
