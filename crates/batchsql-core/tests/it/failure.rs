//! The outcomes of rows when writing fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{
    BatchExecuted, BatchInfo, BatchSql, BeyondBudget, Conflict, Delivery, ErrorClass, Isolation, MetricsReporter,
    Outcome, OutcomeKind,
};
use batchsql_testkit::{ScriptedSink, Step};
use tokio::time::Instant;

use crate::support::{HOUR, config, id, ids, pipeline, plain, receipts, row, table};

#[tokio::test(start_paused = true)]
async fn each_class_of_error_has_its_outcome() {
    let check = async |class, conflict: Conflict, expected: OutcomeKind| {
        let config = config().retry_for(Duration::from_secs(5)).park_for(Duration::ZERO);
        let (db, sink) = pipeline(config);
        sink.script(std::iter::repeat_n(Step::Fail(class), 10_000));
        let schema = table("t", conflict);
        let begin = Instant::now();
        let mut receipts = receipts(&db, &schema, 1..2).await;
        db.flush().await.unwrap();
        let outcome = receipts.remove(0).await;
        assert_eq!(outcome.kind(), expected, "{class}");
        let failed = outcome.failure().unwrap();
        assert_eq!((id(failed.row()), failed.class()), (1, Some(class)));
        let repeats_unknown = class == ErrorClass::Unknown && failed.attempts() > 1;
        let retried = expected == OutcomeKind::Expired || repeats_unknown;
        assert_eq!(begin.elapsed() >= Duration::from_secs(5), retried, "{class}: {:?}", begin.elapsed());
        assert!(sink.applied().is_empty());
    };
    let key = || Conflict::ignore(["id"]);
    check(ErrorClass::Transient, Conflict::none(), OutcomeKind::Expired).await;
    check(ErrorClass::Resource, Conflict::none(), OutcomeKind::Expired).await;
    check(ErrorClass::Row, Conflict::none(), OutcomeKind::Rejected).await;
    check(ErrorClass::Size, Conflict::none(), OutcomeKind::Rejected).await;
    check(ErrorClass::Schema, key(), OutcomeKind::Rejected).await;
    check(ErrorClass::Permission, key(), OutcomeKind::Rejected).await;
    check(ErrorClass::Internal, key(), OutcomeKind::Rejected).await;
    check(ErrorClass::Unknown, Conflict::none(), OutcomeKind::Unknown).await;
    check(ErrorClass::Unknown, key(), OutcomeKind::Unknown).await;
}

#[tokio::test(start_paused = true)]
async fn passing_errors_are_retried_until_they_pass() {
    let (db, sink) = pipeline(config());
    sink.script([Step::Fail(ErrorClass::Transient), Step::Fail(ErrorClass::Resource), Step::Apply]);
    let receipts = receipts(&db, &plain(), 0..10).await;
    for receipt in receipts {
        assert!(receipt.await.is_written());
    }
    assert_eq!((sink.writes(), sink.applied().len()), (3, 10));
}

#[tokio::test(start_paused = true)]
async fn only_the_bad_rows_of_a_batch_are_rejected() {
    let (db, sink) = pipeline(config().buffer_size(1000).flush_size(100));
    sink.poison(|row| matches!(id(row), 13 | 14 | 77));
    let receipts = receipts(&db, &plain(), 0..100).await;
    for (row, receipt) in (0..100).zip(receipts) {
        match receipt.await {
            Outcome::Written => assert!(![13, 14, 77].contains(&row)),
            Outcome::Rejected(failed) => {
                assert_eq!(id(failed.row()), row);
                assert_eq!(failed.code(), Some("poison"));
                assert!([13, 14, 77].contains(&row));
            }
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<i64> = (0..100).filter(|id| ![13, 14, 77].contains(id)).collect();
    assert_eq!(ids(&sink.applied()), expected);
    assert!(sink.writes() < 40, "{} writes", sink.writes());
}

#[tokio::test(start_paused = true)]
async fn a_passing_error_during_isolation_convicts_nobody() {
    let (db, sink) = pipeline(config());
    sink.poison(|row| id(row) == 3);
    sink.script([Step::Apply, Step::Fail(ErrorClass::Transient), Step::Apply, Step::Fail(ErrorClass::Transient)]);
    receipts(&db, &plain(), 0..10).await.clear();
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.written(), balance.outcomes.get(OutcomeKind::Rejected)), (9, 1));
}

#[tokio::test(start_paused = true)]
async fn isolation_beyond_its_budget_rejects_the_rest_together() {
    let isolation = Isolation::Bisect { max_statements: 3, beyond: BeyondBudget::Reject };
    let (db, sink) = pipeline(config().isolation(isolation));
    sink.poison(|row| id(row) % 2 == 1);
    let receipts = receipts(&db, &plain(), 0..10).await;
    let balance = db.flush().await.unwrap();
    for receipt in receipts {
        let outcome = receipt.await;
        // The error of a row that was not tried alone does not say that the row is bad.
        if let Some(failed) = outcome.failure().filter(|failed| id(failed.row()) % 2 == 0) {
            assert!(failed.error().unwrap().to_string().contains("not tried alone"), "{outcome:?}");
        }
    }
    assert_eq!(sink.writes(), 4);
    assert_eq!(balance.in_flight(), 0);
    assert_eq!(balance.written() as usize, sink.applied().len());
    assert!(balance.failed() >= 5);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_repeated_only_where_that_is_harmless() {
    let (db, sink) = pipeline(config());
    sink.script([Step::LoseReply]);
    for receipt in receipts(&db, &plain(), 0..10).await {
        assert_eq!(receipt.await.kind(), OutcomeKind::Unknown);
    }
    assert_eq!(sink.writes(), 1);
    sink.script([Step::LoseReply]);
    let receipts = receipts(&db, &table("t", Conflict::update(["id"])), 0..1).await;
    db.flush().await.unwrap();
    for receipt in receipts {
        assert!(receipt.await.is_written());
    }
    assert_eq!(sink.writes(), 3);
}

#[tokio::test(start_paused = true)]
async fn plain_inserts_are_repeated_after_a_lost_reply_where_that_was_asked_for() {
    let (db, sink) = pipeline(config().delivery(Delivery::AtLeastOnce));
    sink.script([Step::LoseReply]);
    for receipt in receipts(&db, &plain(), 0..10).await {
        assert!(receipt.await.is_written());
    }
    assert_eq!((sink.writes(), sink.applied().len()), (2, 20));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_repeated_after_a_lost_reply_where_that_was_asked_for() {
    let (db, sink) = pipeline(config().delivery(Delivery::NeverRepeat).statement_timeout(Duration::from_secs(2)));
    let schema = table("t", Conflict::update(["id"]));
    sink.script([Step::LoseReply]);
    for receipt in receipts(&db, &schema, 0..10).await {
        assert_eq!(receipt.await.kind(), OutcomeKind::Unknown);
    }
    assert_eq!(sink.writes(), 1);
    // What was not sent, or was undone, is retried.
    sink.script([Step::Fail(ErrorClass::Transient)]);
    for receipt in receipts(&db, &schema, 0..10).await {
        assert!(receipt.await.is_written());
    }
    assert_eq!(sink.writes(), 3);
    // A reply for each row, of which one is lost: the others are known.
    sink.report_rows();
    sink.script([Step::LoseRow(3)]);
    for (id, receipt) in (0..10).zip(receipts(&db, &schema, 0..10).await) {
        let expected = if id == 3 { OutcomeKind::Unknown } else { OutcomeKind::Written };
        assert_eq!(receipt.await.kind(), expected, "row {id}");
    }
    assert_eq!(sink.writes(), 4);
    sink.script([Step::Hang]);
    for receipt in receipts(&db, &schema, 0..10).await {
        assert_eq!(receipt.await.kind(), OutcomeKind::Unknown);
    }
    assert_eq!(sink.writes(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_the_repeat_refuses_may_have_been_written_before() {
    let (db, sink) = pipeline(config().max_concurrency(1));
    sink.script([Step::LoseReply, Step::RejectRow(3)]);
    let schema = table("t", Conflict::update(["id"]));
    for (id, receipt) in (0..10).zip(receipts(&db, &schema, 0..10).await) {
        let expected = if id == 3 { OutcomeKind::Unknown } else { OutcomeKind::Written };
        assert_eq!(receipt.await.kind(), expected, "row {id}");
    }
    assert!(ids(&sink.applied()).contains(&3));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_takes_too_long_is_given_up() {
    let (db, sink) = pipeline(config().statement_timeout(Duration::from_secs(2)));
    sink.script([Step::Hang]);
    let begin = Instant::now();
    let receipts = receipts(&db, &plain(), 0..10).await;
    for receipt in receipts {
        let outcome = receipt.await;
        assert_eq!(outcome.kind(), OutcomeKind::Unknown);
        assert!(outcome.failure().unwrap().error().unwrap().to_string().contains("statement_timeout = 2s"));
    }
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_sink_ends_its_rows_and_nothing_else() {
    let (db, sink) = pipeline(config());
    sink.script([Step::Panic]);
    for receipt in receipts(&db, &plain(), 0..10).await {
        assert_eq!(receipt.await.kind(), OutcomeKind::Unknown);
    }
    for receipt in receipts(&db, &plain(), 10..20).await {
        assert!(receipt.await.is_written());
    }
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.written(), balance.failed(), balance.in_flight()), (10, 10, 0));
}

struct PanickingReporter;

impl MetricsReporter for PanickingReporter {
    fn context(&self) -> Option<Arc<str>> {
        panic!("context")
    }

    fn batch_executed(&self, _: &BatchInfo<'_>, _: &BatchExecuted) {
        panic!("executed")
    }

    fn rows_resolved(&self, _: &BatchInfo<'_>, _: &batchsql_core::OutcomeCounts) {
        panic!("resolved")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_reporter_loses_only_its_events() {
    let sink = ScriptedSink::new();
    let db = BatchSql::builder(sink.clone()).config(config()).metrics_reporter(PanickingReporter).start().unwrap();
    for id in 0..15 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.written(), sink.applied().len()), (15, 15));
}

#[tokio::test(start_paused = true)]
async fn the_failed_row_callback_sees_every_failed_row() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = ScriptedSink::new();
    sink.poison(|row| id(row) % 5 == 0);
    let db = BatchSql::builder(sink)
        .config(config())
        .on_failed_row({
            let seen = Arc::clone(&seen);
            move |outcome| {
                let count = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(id(outcome.failure().unwrap().row()));
                    seen.len()
                };
                assert_ne!(count, 1, "the first call panics, and the panic is caught");
            }
        })
        .start()
        .unwrap();
    for id in 0..20 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let balance = db.flush().await.unwrap();
    assert_eq!(balance.failed(), 4);
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, [0, 5, 10, 15]);
}

#[tokio::test(start_paused = true)]
async fn receipts_can_be_polled_again_and_dropped() {
    let (db, sink) = pipeline(config());
    sink.script([Step::Delay(Duration::from_secs(1))]);
    let mut receipts = receipts(&db, &plain(), 0..10).await;
    let mut first = receipts.remove(0);
    assert!(first.try_outcome().is_none());
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut first).await.is_err());
    receipts.truncate(2);
    assert!((&mut first).await.is_written());
    assert!(first.try_outcome().unwrap().is_written());
    assert!(first.await.is_written());
}

#[tokio::test(start_paused = true)]
async fn errors_and_debug_output_show_no_values() {
    let (db, sink) = pipeline(config());
    sink.poison(|_| true);
    let secret = plain().row().set("id", 4711_i64).unwrap().set("note", "hunter2").unwrap().finish().unwrap();
    let receipt = db.submit_tracked(&secret).await.unwrap();
    let report = db.close(HOUR).await;
    let outcome = receipt.await;
    let shown = format!("{outcome:?} {report:?} {db:?} {secret:?} {}", outcome.failure().unwrap().error().unwrap());
    assert!(!shown.contains("hunter2") && !shown.contains("4711"), "{shown}");
}

/// Counts how often a batch is split, and records rejected rows.
#[derive(Clone, Default)]
struct Isolations(Arc<Mutex<usize>>, Arc<Mutex<Vec<(ErrorClass, u64)>>>);

impl MetricsReporter for Isolations {
    fn batch_isolated(&self, _: &BatchInfo<'_>) {
        *self.0.lock().unwrap() += 1;
    }

    fn rows_rejected(&self, _: &BatchInfo<'_>, class: ErrorClass, rows: u64) {
        self.1.lock().unwrap().push((class, rows));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_taken_apart_is_told_once() {
    let isolations = Isolations::default();
    let sink = ScriptedSink::new();
    let builder = BatchSql::builder(sink.clone()).config(config()).metrics_reporter(isolations.clone());
    let db = builder.start().unwrap();
    // Size errors are not caused by single rows.
    sink.script([Step::Fail(ErrorClass::Size)]);
    drop(receipts(&db, &plain(), 0..10).await);
    db.flush().await.unwrap();
    assert_eq!(*isolations.0.lock().unwrap(), 0);
    sink.poison(|row| matches!(id(row), 13 | 17));
    drop(receipts(&db, &plain(), 10..20).await);
    db.flush().await.unwrap();
    assert_eq!(*isolations.0.lock().unwrap(), 1);
    assert_eq!(*isolations.1.lock().unwrap(), [(ErrorClass::Row, 2)]);
}
