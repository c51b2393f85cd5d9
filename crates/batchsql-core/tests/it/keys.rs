//! Keys that look different and that a database may treat as one: they keep their order, and none is left out for
//! another.

use batchsql_core::{
    BatchSql, ColumnType, Conflict, Decimal, DynRow, Encode, KeyHasher, OutcomeKind, Row, Schema, Value, ValueRef,
};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::config;

fn keyed(ty: ColumnType) -> Schema {
    let schema = Schema::builder("t").column("key", ty).column("version", ColumnType::I64);
    schema.on_conflict(Conflict::update(["key"])).build().unwrap()
}

fn row(schema: &Schema, key: impl Into<Value>, version: i64) -> DynRow {
    schema.row().set("key", key).unwrap().set("version", version).unwrap().finish().unwrap()
}

fn decimal(digits: &str) -> Decimal {
    digits.parse().unwrap()
}

const ONE_AND_A_HALF: [&str; 4] = ["1.50", "1.5", "01.5", "1.500"];

#[test]
fn equal_numbers_have_one_hash() {
    let hash = |key: &dyn Fn(&mut KeyHasher)| {
        let mut hasher = KeyHasher::default();
        key(&mut hasher);
        hasher.finish()
    };
    let decimals = keyed(ColumnType::Decimal);
    for form in ONE_AND_A_HALF {
        let expected = row(&decimals, decimal("1.5"), 0).key_hash();
        assert_eq!(row(&decimals, decimal(form), 0).key_hash(), expected, "{form}");
        assert_eq!(hash(&|hasher| decimal(form).hash_key(hasher)), expected, "{form}");
    }
    assert_ne!(row(&decimals, decimal("1.5"), 0).key_hash(), row(&decimals, decimal("-1.5"), 0).key_hash());
    assert_eq!(row(&decimals, 2_i64, 0).key_hash(), row(&decimals, decimal("2.0"), 0).key_hash());
    assert_eq!(row(&decimals, decimal("-0.0"), 0).key_hash(), row(&decimals, decimal("0"), 0).key_hash());
    assert_eq!(hash(&|hasher| (-0.0_f32).hash_key(hasher)), hash(&|hasher| 0.0_f32.hash_key(hasher)));
    assert_eq!(hash(&|hasher| (-f64::NAN).hash_key(hasher)), hash(&|hasher| f64::NAN.hash_key(hasher)));
}

/// Writes rows with these keys, and returns the versions in the order of writing. None is left out.
async fn written(ty: ColumnType, keys: &[Value], max_concurrency: usize) -> Vec<i64> {
    let sink = ScriptedSink::new();
    sink.sort_by_key();
    // A row in another lane overtakes.
    sink.script([Step::Delay(std::time::Duration::from_secs(1))]);
    let config = config().max_concurrency(max_concurrency).flush_size(if max_concurrency == 1 { 10 } else { 1 });
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let schema = keyed(ty);
    let mut receipts = Vec::new();
    for (version, key) in (0..).zip(keys) {
        receipts.push(db.submit_tracked(&row(&schema, key.clone(), version)).await.unwrap());
    }
    db.flush().await.unwrap();
    for receipt in receipts {
        assert_eq!(receipt.await.kind(), OutcomeKind::Written);
    }
    let version = |row: &DynRow| match row.get("version") {
        Some(ValueRef::I64(version)) => version,
        other => panic!("{other:?}"),
    };
    sink.applied().iter().map(version).collect()
}

#[tokio::test(start_paused = true)]
async fn decimals_keep_the_order_of_their_numbers_and_each_is_written() {
    let keys = ONE_AND_A_HALF.map(|form| decimal(form).into());
    // In one batch, where a database that has them as text (SQLite, Redis) has a row for each.
    assert_eq!(written(ColumnType::Decimal, &keys, 1).await, [0, 1, 2, 3]);
    // In batches of their own, which one lane keeps in order.
    assert_eq!(written(ColumnType::Decimal, &keys, 4).await, [0, 1, 2, 3]);
    // Among others they are sorted by number.
    let keys = ["10", "9.0", "-1", "9"].map(|form| decimal(form).into());
    assert_eq!(written(ColumnType::Decimal, &keys, 1).await, [2, 1, 3, 0]);
}

#[tokio::test(start_paused = true)]
async fn sorting_leaves_floats_in_order_that_are_equal() {
    let config = config().coalesce(batchsql_core::Coalesce::Off).max_concurrency(1);
    let check = async |ty, keys: [Value; 3]| {
        let sink = ScriptedSink::new();
        sink.sort_by_key();
        let db = BatchSql::builder(sink.clone()).config(config.clone()).start().unwrap();
        for (version, key) in (0..).zip(keys) {
            db.submit(&row(&keyed(ty), key, version)).await.unwrap();
        }
        db.flush().await.unwrap();
        let versions: Vec<_> = sink.applied().iter().map(|row| row.get("version").unwrap().to_value()).collect();
        assert_eq!(versions, [Value::I64(2), Value::I64(0), Value::I64(1)], "{ty}");
    };
    check(ColumnType::F64, [0.0.into(), (-0.0).into(), (-1.0).into()]).await;
    check(ColumnType::F32, [0.0_f32.into(), (-0.0_f32).into(), (-1.0_f32).into()]).await;
    check(ColumnType::F64, [f64::NAN.into(), (-f64::NAN).into(), 1.0.into()]).await;
}

#[test]
fn neighbours_go_the_same_way_and_far_keys_do_not() {
    let hash = |values: &[ValueRef<'_>]| {
        let mut hasher = KeyHasher::default();
        values.iter().for_each(|value| hasher.add(*value));
        hasher.finish()
    };
    // Equal numbers are equal keys, whatever their width.
    let same = [ValueRef::I16(-300), ValueRef::I32(-300), ValueRef::I64(-300)];
    assert!(same.iter().all(|value| hash(&[*value]) == hash(&same[..1])));
    assert_eq!(hash(&[ValueRef::U64(7)]), hash(&[ValueRef::I64(7)]));
    assert_eq!(hash(&[ValueRef::I64(256)]), hash(&[ValueRef::I64(511)]));
    let runs: std::collections::HashSet<u64> = (0..1000).map(|run| hash(&[ValueRef::I64(run * 256)])).collect();
    assert_eq!(runs.len(), 1000);
    assert_ne!(hash(&[ValueRef::U64(u64::MAX)]), hash(&[ValueRef::U64(u64::MAX - 300)]));
    // The other columns of a key count in full.
    let of = |text| hash(&[ValueRef::I64(1), ValueRef::Text(text)]);
    assert_ne!(of("a"), of("b"));
}
