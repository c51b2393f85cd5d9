//! Rows with equal keys in one batch.

use std::time::Duration;

use batchsql_core::{Coalesce, Conflict, DynRow, ErrorClass, Isolation, OutcomeKind, PipelineConfig, Schema, ValueRef};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{config, pipeline, table};

fn version(schema: &Schema, id: i64, note: &str) -> DynRow {
    schema.row().set("id", id).unwrap().set("note", note).unwrap().finish().unwrap()
}

fn note(row: &DynRow) -> &str {
    match row.get("note") {
        Some(ValueRef::Text(note)) => note,
        other => panic!("no note: {other:?}"),
    }
}

fn notes(rows: &[DynRow]) -> Vec<&str> {
    rows.iter().map(note).collect()
}

/// Submits versions `(id, note)` in one batch, and returns the outcome of each and what the sink applied.
async fn outcomes(
    config: PipelineConfig,
    conflict: Conflict,
    versions: &[(i64, &str)],
    prepare: impl FnOnce(&ScriptedSink),
) -> (Vec<OutcomeKind>, ScriptedSink) {
    let (db, sink) = pipeline(config);
    prepare(&sink);
    let schema = table("t", conflict);
    let mut receipts = Vec::new();
    for (id, note) in versions {
        receipts.push(db.submit_tracked(&version(&schema, *id, note)).await.unwrap());
    }
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.accepted, balance.in_flight()), (versions.len() as u64, 0));
    let mut kinds = Vec::new();
    for (receipt, (id, note)) in receipts.into_iter().zip(versions) {
        let outcome = receipt.await;
        if let Some(failed) = outcome.failure() {
            assert_eq!(failed.row().get("id"), Some(ValueRef::I64(*id)));
            assert_eq!(failed.row().get("note"), Some(ValueRef::Text(note)));
        }
        kinds.push(outcome.kind());
    }
    for kind in OutcomeKind::ALL {
        assert_eq!(balance.outcomes.get(kind) as usize, kinds.iter().filter(|other| **other == kind).count());
    }
    (kinds, sink)
}

/// One lane, so that all rows are in one batch.
fn one_lane() -> PipelineConfig {
    config().max_concurrency(1)
}

use OutcomeKind::{Ignored, Rejected, Superseded, Unknown, Written};

const VERSIONS: [(i64, &str); 6] = [(1, "a"), (2, "b"), (1, "c"), (3, "d"), (1, "e"), (2, "f")];

#[tokio::test(start_paused = true)]
async fn the_last_version_of_a_key_is_written_and_the_others_are_superseded() {
    for conflict in [Conflict::update(["id"]), Conflict::replace(["id"])] {
        let (kinds, sink) = outcomes(one_lane(), conflict, &VERSIONS, |_| {}).await;
        assert_eq!(kinds, [Superseded, Superseded, Superseded, Written, Written, Written]);
        assert_eq!(notes(&sink.applied()), ["d", "e", "f"]);
        assert_eq!(sink.writes(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn rules_under_which_an_earlier_version_counts_are_not_coalesced() {
    let written = [Written; 6];
    let (kinds, _) = outcomes(one_lane(), Conflict::none(), &VERSIONS, |_| {}).await;
    assert_eq!(kinds, written);
    let off = one_lane().coalesce(Coalesce::Off);
    let (kinds, sink) = outcomes(off, Conflict::update(["id"]), &VERSIONS, |_| {}).await;
    assert_eq!((kinds.as_slice(), sink.applied().len()), (&written[..], 6));
    let (kinds, sink) = outcomes(one_lane(), Conflict::ignore(["id"]), &VERSIONS, |_| {}).await;
    assert_eq!(kinds, [Written, Written, Ignored, Written, Ignored, Ignored]);
    assert_eq!(notes(&sink.applied()), ["a", "b", "d"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_winner_lets_the_version_before_it_run() {
    let poison = |sink: &ScriptedSink| sink.poison(|row| ["e", "c"].contains(&note(row)));
    // Found by halving, and reported by the sink.
    for tells_rows in [false, true] {
        let (kinds, sink) = outcomes(one_lane(), Conflict::update(["id"]), &VERSIONS, |sink| {
            poison(sink);
            if tells_rows {
                sink.report_rows();
            }
        })
        .await;
        assert_eq!(kinds, [Written, Superseded, Rejected, Written, Rejected, Written], "tells rows: {tells_rows}");
        assert_eq!(notes(&sink.applied()), ["d", "f", "a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_atomic_batch_is_rejected_with_the_versions_it_would_have_superseded() {
    let atomic = one_lane().isolation(Isolation::AtomicBatch);
    for tells_rows in [false, true] {
        let (kinds, sink) = outcomes(atomic.clone(), Conflict::update(["id"]), &VERSIONS, |sink| {
            sink.poison(|row| note(row) == "d");
            if tells_rows {
                sink.report_rows();
            }
        })
        .await;
        assert_eq!((kinds, sink.writes(), sink.applied().len()), (vec![Rejected; 6], 1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn superseded_rows_share_the_fate_of_a_winner_that_was_not_judged() {
    let check = async |steps: &'static [Step], expected| {
        let config = one_lane().retry_for(Duration::ZERO).park_for(Duration::ZERO);
        let (kinds, _) =
            outcomes(config, Conflict::update(["id"]), &VERSIONS, |sink| sink.script(steps.iter().copied())).await;
        assert_eq!(kinds, [expected; 6], "{steps:?}");
    };
    check(&[Step::Fail(ErrorClass::Transient)], OutcomeKind::Expired).await;
    check(&[Step::Fail(ErrorClass::Internal); 100], Rejected).await;
    check(&[Step::LoseReply], Unknown).await;
    // The winners were being written when the sink panicked.
    check(&[Step::Panic], Unknown).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_repeats_the_winners() {
    let (kinds, sink) =
        outcomes(one_lane(), Conflict::update(["id"]), &VERSIONS, |sink| sink.script([Step::LoseReply])).await;
    assert_eq!(kinds, [Superseded, Superseded, Superseded, Written, Written, Written]);
    assert_eq!(sink.tables().rows("t").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn keys_that_only_the_database_sees_as_equal_are_written_apart_and_in_order() {
    // The database treats 1, 101 and 201 as equal, as a collation treats "a" and "A" as equal.
    let same = |row: &DynRow| match row.get("id") {
        Some(ValueRef::I64(id)) => (id % 100).to_string(),
        other => panic!("{other:?}"),
    };
    let versions = [(1, "a"), (2, "b"), (101, "c"), (3, "d"), (201, "e"), (2, "f")];
    let (kinds, sink) = outcomes(one_lane(), Conflict::update(["id"]), &versions, |sink| sink.refuse_equal(same)).await;
    assert_eq!(kinds, [Written, Superseded, Written, Written, Written, Written]);
    let applied = sink.applied();
    let ones: Vec<&str> = applied.iter().filter(|row| same(row) == "1").map(note).collect();
    assert_eq!(ones, ["a", "c", "e"]);
}

#[tokio::test(start_paused = true)]
async fn many_equal_keys_are_no_matter_of_the_isolation_budget() {
    let isolation = Isolation::Bisect { max_statements: 1, beyond: batchsql_core::BeyondBudget::Reject };
    let config = one_lane().isolation(isolation).flush_size(64);
    let versions: Vec<(i64, &str)> = (0..64).map(|id| (id, "x")).collect();
    let (kinds, _) =
        outcomes(config, Conflict::update(["id"]), &versions, |sink| sink.refuse_equal(|_| "same".to_owned())).await;
    assert_eq!(kinds, [Written; 64]);
}

#[tokio::test(start_paused = true)]
async fn the_isolation_budget_is_that_of_the_batch_over_all_versions() {
    let isolation = Isolation::Bisect { max_statements: 4, beyond: batchsql_core::BeyondBudget::Reject };
    let config = one_lane().isolation(isolation).flush_size(64);
    let versions: Vec<(i64, &str)> = (0..64).map(|id| (id % 4, "x")).collect();
    let (kinds, sink) = outcomes(config, Conflict::update(["id"]), &versions, |sink| sink.poison(|_| true)).await;
    assert_eq!(kinds, [Rejected; 64]);
    assert!(sink.writes() <= 5, "{} writes", sink.writes());
}

#[tokio::test(start_paused = true)]
async fn each_of_many_refused_versions_has_its_turn_where_the_sink_tells_rows() {
    let config = one_lane().flush_size(400).buffer_size(400);
    let versions: Vec<(i64, &str)> = (0..400).map(|version| (1, if version == 0 { "good" } else { "bad" })).collect();
    let (kinds, sink) = outcomes(config, Conflict::update(["id"]), &versions, |sink| {
        sink.report_rows();
        sink.poison(|row| note(row) == "bad");
    })
    .await;
    assert_eq!((kinds[0], &kinds[1..]), (Written, &[Rejected; 399][..]));
    assert_eq!(notes(&sink.applied()), ["good"]);
}
