//! Owns the check whether a sink keeps positions as exactly once needs them.
//! Must not know any database.

use std::ops::Range;

use crate::check_leases::check_leases;
use crate::check_removal::check_removal;
use batchsql_core::{
    BatchSql, Claim, ClaimFrom, Claimed, DynRow, ErrorClass, OutcomeKind, PartitionKey, Position, RowBuffer, Schema,
    SharedRows, Step, ValueRules,
};

/// Checks that a sink moves positions together with rows, for a table with a column `id` (`I64`) that refuses negative ids, for
/// example by `CHECK (id >= 0)`, and has no rows. `source` names positions that nothing else uses. `ids` reads all ids of the
/// table, in order. Each step has `size` rows, which a driver may write in different ways.
///
/// # Panics
/// When the sink does something else.
pub async fn check_positions<F: Future<Output = Vec<i64>>>(
    db: &BatchSql,
    schema: &Schema,
    source: &str,
    size: i64,
    ids: impl Fn() -> F,
) {
    assert!(db.keeps_positions(), "the sink says that it keeps positions");
    let key = PartitionKey::new(source, "incarnation", "\"t\"", 3);
    let claim =
        async |key: &PartitionKey, claim: Claim| db.claim(key, &claim).await.expect("the database can be asked");
    let taken = async |key: &PartitionKey, of: Claim| claim(key, of).await.position().expect("it is claimed");
    let anyone = |owner: &str| Claim::of(owner).from(ClaimFrom::Anyone);
    assert_eq!(claim(&key, anyone("a")).await, Claimed::Missing);
    assert_eq!(claim(&key, Claim::of("a")).await, Claimed::Missing);
    let begun = taken(&key, anyone("a").or_begin_at(5)).await;
    assert_eq!(begun.sequence, 5);
    let now = taken(&key, Claim::of("a").or_begin_at(9)).await;
    assert_eq!((now.id, now.sequence), (begun.id, 5), "the position that is there stays");
    assert!(now.epoch > begun.epoch, "a claim raises the epoch");

    let rows = |ids: Range<i64>| rows_of(schema, ids);
    let written = |counts: batchsql_core::OutcomeCounts| counts.get(OutcomeKind::Written);
    let first = rows(0..size);
    let counts = db.write_step(first.rows(), &Step::new(now, 5 + size)).await.expect("a step of the owner");
    assert_eq!((written(counts), ids().await), (size as u64, (0..size).collect()));
    let reached = Position { sequence: 5 + size, ..now };

    // What another epoch or another position sends changes nothing.
    let more = rows(size..2 * size);
    for stale in [begun, now, Position { sequence: 7 + size, ..now }, Position { epoch: now.epoch + 1, ..reached }] {
        let error = db.write_step(more.rows(), &Step::new(stale, 99_999)).await.expect_err("a stale step").error;
        assert!(error.is_fenced(), "{stale:?}: {error}");
        let error = db.advance(&Step::new(stale, 99_999)).await.expect_err("it is refused");
        assert!(error.is_fenced(), "{stale:?}: {error}");
    }
    // One bad row refuses them all, with the position.
    let bad = rows(-1..size - 1);
    let refused = db.write_step(bad.rows(), &Step::new(reached, 99_999)).await.expect_err("it is refused");
    assert!(refused.was_sent && refused.error.class() == ErrorClass::Row, "{refused}");
    // A step that is rolled back tells the same, and changes nothing.
    db.write_step(more.rows(), &Step::new(reached, 99_999).rolled_back()).await.expect("a step of the owner");
    let refused =
        db.write_step(bad.rows(), &Step::new(reached, 99_999).rolled_back()).await.expect_err("it is refused");
    assert!(refused.was_sent && refused.error.class() == ErrorClass::Row, "{refused}");
    assert_eq!(ids().await, (0..size).collect::<Vec<_>>());
    assert_eq!(taken(&key, Claim::of("a")).await.sequence, 5 + size);

    // The owner that claimed last holds it.
    assert_eq!(claim(&key, Claim::of("b").or_begin_at(0)).await, Claimed::Other);
    let other = taken(&key, Claim::of("b").from(ClaimFrom::Owners(vec!["x".into(), "a".into()]))).await;
    assert_eq!(claim(&key, Claim::of("a")).await, Claimed::Other);
    let held = taken(&key, Claim::of("b")).await;
    assert!(held.epoch > other.epoch && held.sequence == 5 + size, "{held:?}");
    db.advance(&Step::new(held, 7 + size)).await.expect("a step of the owner");
    let held = Position { sequence: 7 + size, ..held };
    db.write_step(more.rows(), &Step::new(held, 7 + 2 * size)).await.expect("a step of the owner");
    assert_eq!(ids().await, (0..2 * size).collect::<Vec<_>>());

    // Other partitions, tables, incarnations and sources are others.
    for other in [
        PartitionKey::new(source, "incarnation", "\"t\"", 2),
        PartitionKey::new(source, "incarnation", "\"T\"", 3),
        PartitionKey::new(source, "Incarnation", "\"t\"", 3),
        PartitionKey::new(format!("{source}x"), "incarnation", "\"t\"", 3),
    ] {
        assert_eq!(claim(&other, anyone("a")).await, Claimed::Missing, "{other}");
    }
    check_leases(db, &format!("{source} shared")).await;
    check_removal(db, &format!("{source} old")).await;
    assert_eq!(db.balance().accepted, 2 * size as u64);
    assert_eq!(db.balance().written(), 2 * size as u64);
}

fn rows_of(schema: &Schema, ids: Range<i64>) -> SharedRows {
    let mut rows = RowBuffer::new(schema, ValueRules::default());
    for id in ids {
        let row: DynRow = schema.row().set("id", id).and_then(|row| row.finish()).expect("a table with one column id");
        rows.push(&row).expect("a row with an id");
    }
    rows.into_rows()
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, ValueRef};

    use super::*;
    use crate::scripted::{Sabotage, ScriptedSink};

    #[tokio::test(start_paused = true)]
    async fn the_scripted_sink_keeps_positions() {
        check(&ScriptedSink::new()).await;
    }

    #[tokio::test]
    async fn a_sink_without_an_epoch_test_or_with_positions_of_their_own_is_found() {
        for sabotage in [Sabotage::NoEpochTest, Sabotage::PositionAlone] {
            let sink = ScriptedSink::new();
            sink.sabotage(sabotage);
            let checked = tokio::spawn(async move { check(&sink).await }).await;
            assert!(checked.is_err_and(|error| error.is_panic()), "{sabotage:?} was not found");
        }
    }

    async fn check(sink: &ScriptedSink) {
        sink.keep_positions();
        sink.poison(|row| row.get("id") == Some(ValueRef::I64(-1)));
        let db = BatchSql::builder(sink.clone()).start().unwrap();
        let schema = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
        check_positions(&db, &schema, "s", 10, async || {
            let id = |row: &DynRow| match row.get("id") {
                Some(ValueRef::I64(id)) => id,
                other => panic!("{other:?}"),
            };
            let mut ids: Vec<i64> = sink.applied().iter().map(id).collect();
            ids.sort_unstable();
            ids
        })
        .await;
    }
}
