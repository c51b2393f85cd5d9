//! Batches that take several rounds: rows that the sink could not finish, rows with an unknown outcome, and
//! predecessors.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{
    Attempt, BatchSql, BeyondBudget, ColumnType, Conflict, ErrorClass, Isolation, Ordering, OutcomeKind,
    PipelineConfig, Receipt, Rows, Schema, Sink, SinkError, ValueRef, Written,
};
use batchsql_testkit::{ScriptedSink, Step};
use tokio::time::Instant;

use crate::support::{config, id, ids, pipeline, plain, receipts, row, table};

#[tokio::test(start_paused = true)]
async fn rows_that_the_sink_could_not_finish_are_written_later_and_alone() {
    for class in [ErrorClass::Transient, ErrorClass::Resource] {
        let (db, sink) = pipeline(config());
        sink.script([Step::LeaveRow(3, class), Step::Fail(ErrorClass::Transient), Step::RejectRow(0)]);
        let receipts = receipts(&db, &plain(), 0..10).await;
        let report = db.flush().await.unwrap();
        assert_eq!((report.written(), report.rejected()), (9, 1), "{class}");
        for (row, receipt) in (0..10).zip(receipts) {
            assert_eq!(receipt.await.kind() == OutcomeKind::Rejected, row == 3, "{row}");
        }
        assert_eq!((sink.writes(), sink.applied().len()), (3, 9));
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_stays_unfinished_expires_and_takes_its_elders_with_it() {
    let (db, sink) = pipeline(config().retry_for(Duration::from_secs(5)).max_concurrency(1));
    let keyed = table("t", Conflict::update(["id"]));
    let mut receipts = Vec::new();
    for id in [1, 2, 1] {
        receipts.push(db.submit_tracked(&row(&keyed, id)).await.unwrap());
    }
    // Row 2 and the later row 1 are sent; the latter is never written.
    sink.script([Step::LeaveRow(1, ErrorClass::Transient)]);
    sink.script(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 1_000));
    let begin = Instant::now();
    db.flush().await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(5), "{:?}", begin.elapsed());
    let mut kinds = Vec::new();
    for receipt in receipts {
        kinds.push(receipt.await.kind());
    }
    assert_eq!(kinds, [OutcomeKind::Expired, OutcomeKind::Written, OutcomeKind::Expired]);
}

#[tokio::test(start_paused = true)]
async fn rows_that_may_be_written_are_repeated_only_where_that_is_harmless() {
    let check = async |conflict: Conflict, steps: &[Step], expected: OutcomeKind| {
        let (db, sink) = pipeline(config().ordering(Ordering::PerTable));
        sink.script(steps.iter().copied());
        let mut receipts = receipts(&db, &table("t", conflict), 0..3).await;
        db.flush().await.unwrap();
        let kind = receipts.remove(1).await.kind();
        assert_eq!(kind, expected, "{steps:?}");
        for receipt in receipts {
            assert!(receipt.await.is_written());
        }
    };
    let left = Step::LeaveRow(1, ErrorClass::Unknown);
    check(Conflict::none(), &[left], OutcomeKind::Unknown).await;
    check(Conflict::update(["id"]), &[left], OutcomeKind::Written).await;
    // A refused repeat shows nothing about the first attempt.
    check(Conflict::update(["id"]), &[left, Step::RejectRow(0)], OutcomeKind::Unknown).await;
    check(
        Conflict::update(["id"]),
        &[left, Step::Fail(ErrorClass::Internal), Step::Fail(ErrorClass::Internal)],
        OutcomeKind::Unknown,
    )
    .await;
    let retried = [left, Step::LeaveRow(0, ErrorClass::Transient), Step::RejectRow(0)];
    check(Conflict::update(["id"]), &retried, OutcomeKind::Unknown).await;
}

#[tokio::test(start_paused = true)]
async fn unfinished_rows_are_accounted_for_when_the_pipeline_closes() {
    let check = async |class, expected: OutcomeKind| {
        let (db, sink) = pipeline(config().ordering(Ordering::PerTable));
        sink.script([Step::LeaveRow(1, class)]);
        // It is retried until its time is over.
        sink.script(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 10_000));
        let mut receipts = receipts(&db, &table("t", Conflict::update(["id"])), 0..3).await;
        let report = db.close(Duration::from_secs(1)).await;
        assert_eq!((report.balance.written(), report.balance.failed()), (2, 1));
        assert_eq!(receipts.remove(1).await.kind(), expected, "{class}");
    };
    check(ErrorClass::Unknown, OutcomeKind::Unknown).await;
    check(ErrorClass::Transient, OutcomeKind::Purged).await;
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_row_never_comes_after_a_later_one_with_its_key() {
    let (db, sink) = pipeline(config().ordering(Ordering::PerTable));
    // Every version is written, because the rule does not overwrite every column.
    let schema = Schema::builder("t")
        .column("id", ColumnType::I64)
        .column("note", ColumnType::I64)
        .column("kept", ColumnType::I64)
        .on_conflict(Conflict::update_columns(["id"], ["note"]))
        .build()
        .unwrap();
    sink.script([Step::Fail(ErrorClass::Row), Step::LeaveRow(0, ErrorClass::Transient)]);
    for (note, id) in (0_i64..).zip([1_i64, 2, 1, 3]) {
        let row = schema.row().set_all([id, note, 0].map(batchsql_core::Value::I64)).unwrap().finish().unwrap();
        db.submit(&row).await.unwrap();
    }
    assert_eq!(db.flush().await.unwrap().failed(), 0);
    let batches: Vec<Vec<i64>> = sink.batches().iter().map(|rows| ids(rows)).collect();
    // The second half waited for the row that was left.
    assert_eq!(batches, [vec![2], vec![1, 1, 3]]);
}

/// Submits versions `(id, note)` to one lane.
async fn versions(db: &BatchSql, schema: &Schema, versions: &[(i64, &str)]) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for (id, note) in versions {
        let row = schema.row().set("id", *id).unwrap().set("note", *note).unwrap().finish().unwrap();
        receipts.push(db.submit_tracked(&row).await.unwrap());
    }
    db.flush().await.unwrap();
    receipts
}

/// The table may have keys that are equal only to it, and rows that refer to others.
#[tokio::test(start_paused = true)]
async fn every_row_of_a_table_in_order_is_written_in_its_turn() {
    let (db, sink) = pipeline(config().ordering(Ordering::PerTable));
    let schema = table("t", Conflict::update(["id"]));
    sink.poison(|row| row.get("note") == Some(ValueRef::Text("bad")));
    let rows = [(1, "a"), (2, "b"), (1, "c"), (2, "d"), (1, "bad")];
    let receipts = versions(&db, &schema, &rows).await;
    assert_eq!(
        kinds(receipts).await,
        [OutcomeKind::Written, OutcomeKind::Written, OutcomeKind::Written, OutcomeKind::Written, Rejected]
    );
    assert_eq!(ids(&sink.applied()), [1, 2, 1, 2]);
}

async fn kinds(receipts: Vec<Receipt>) -> Vec<OutcomeKind> {
    let mut kinds = Vec::new();
    for receipt in receipts {
        kinds.push(receipt.await.kind());
    }
    kinds
}

use OutcomeKind::{Expired, Rejected, Unknown};

#[tokio::test(start_paused = true)]
async fn a_row_that_may_be_there_is_not_rejected_when_the_budget_is_spent() {
    let isolation = Isolation::Bisect { max_statements: 1, beyond: BeyondBudget::Reject };
    let (db, sink) = pipeline(config().ordering(Ordering::PerTable).isolation(isolation));
    sink.script([Step::Fail(ErrorClass::Row), Step::LoseRow(0)]);
    let receipts = receipts(&db, &table("t", Conflict::update(["id"])), 0..2).await;
    db.flush().await.unwrap();
    assert_eq!(kinds(receipts).await, [Unknown, Rejected]);
    assert_eq!(ids(&sink.applied()), [0]);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_there_is_known_of_each_row() {
    let check = async |steps: &[Step], expected: [OutcomeKind; 5]| {
        let retry_for = Duration::from_secs(5);
        let park_for = Duration::ZERO;
        let (db, sink) = pipeline(config().max_concurrency(1).retry_for(retry_for).park_for(park_for));
        // The second half of the batch waits for row 0, and has the next round with it.
        sink.script([Step::Fail(ErrorClass::Row), Step::LoseRow(0)]);
        sink.script(steps.iter().copied());
        let rows = [(0, "n"), (1, "n"), (2, "elder"), (3, "n"), (2, "n")];
        let receipts = versions(&db, &table("t", Conflict::update(["id"])), &rows).await;
        assert_eq!(kinds(receipts).await, expected, "{steps:?}");
    };
    let written = OutcomeKind::Written;
    check(&[], [written, written, OutcomeKind::Superseded, written, written]).await;
    // A row that was never sent before is rejected, and its predecessor is sent next.
    check(&[Step::RejectRow(2)], [written, written, written, written, Rejected]).await;
    check(&[Step::RejectRow(0)], [Unknown, written, OutcomeKind::Superseded, written, written]).await;
    check(&[Step::Fail(ErrorClass::Row)], [Unknown, written, OutcomeKind::Superseded, written, written]).await;
    check(&[Step::Fail(ErrorClass::Internal); 1_000], [Unknown, written, Rejected, Rejected, Rejected]).await;
    check(&[Step::Fail(ErrorClass::Transient); 1_000], [Unknown, written, Expired, Expired, Expired]).await;
}

/// Returns the given results, and keeps the ids of the rows that it got.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Calls>>);

#[derive(Default)]
struct Calls {
    answers: VecDeque<Result<Written, SinkError>>,
    given: Vec<Vec<i64>>,
}

impl Sink for Told {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "told"
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), rows: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        let mut calls = self.0.lock().unwrap();
        calls.given.push((0..rows.len()).map(|row| id(&rows.to_row(row))).collect());
        calls.answers.pop_front().unwrap_or_else(|| Ok(Written::default()))
    }
}

fn unfinished(rows: &[(u32, ErrorClass)]) -> Result<Written, SinkError> {
    let mut written = Written::default();
    written.unfinished = rows.iter().map(|(row, class)| (*row, SinkError::new(*class, "told"))).collect();
    Ok(written)
}

/// The outcomes of rows when the sink returns these results, and the ids that it got.
async fn told(
    config: PipelineConfig,
    rows: &[i64],
    answers: impl IntoIterator<Item = Result<Written, SinkError>>,
) -> (Vec<(OutcomeKind, Option<ErrorClass>)>, Vec<Vec<i64>>) {
    let sink = Told::default();
    sink.0.lock().unwrap().answers.extend(answers);
    let config = config.ordering(Ordering::PerTable).coalesce(batchsql_core::Coalesce::Off);
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let rows: Vec<(i64, &str)> = rows.iter().map(|id| (*id, "n")).collect();
    let mut ends = Vec::new();
    for receipt in versions(&db, &table("t", Conflict::update(["id"])), &rows).await {
        let outcome = receipt.await;
        ends.push((outcome.kind(), outcome.failure().and_then(batchsql_core::FailedRow::class)));
    }
    let given = sink.0.lock().unwrap().given.clone();
    (ends, given)
}

#[tokio::test(start_paused = true)]
async fn a_row_is_not_written_after_a_later_one_with_its_key_that_may_be_there() {
    use ErrorClass::{Row, Transient};
    let answers =
        [unfinished(&[(0, Transient), (1, ErrorClass::Unknown), (2, Transient)]), Err(SinkError::new(Row, "bad"))];
    let (ends, given) = told(config(), &[1, 1, 2], answers).await;
    // The error is that of the attempt that made it unknown.
    assert_eq!(ends, [(Rejected, Some(Row)), (Unknown, Some(ErrorClass::Unknown)), (OutcomeKind::Written, None)]);
    assert_eq!(given, [vec![1, 1, 2], vec![1, 1, 2], vec![2]]);
}

#[tokio::test(start_paused = true)]
async fn rows_rest_with_the_error_that_made_them_rest() {
    use ErrorClass::{Resource, Row, Transient};
    let check = async |first, second, expected| {
        let config = config().retry_for(Duration::ZERO);
        let (ends, _) = told(config, &[1, 2], [unfinished(&[(0, first), (1, second)])]).await;
        assert_eq!(ends[1], expected, "{first} {second}");
    };
    check(Row, Transient, (Expired, Some(Transient))).await;
    check(Row, Resource, (Expired, Some(Resource))).await;
    check(ErrorClass::Internal, ErrorClass::Unknown, (Unknown, Some(ErrorClass::Unknown))).await;
}

#[tokio::test(start_paused = true)]
async fn each_unfinished_row_expires_with_its_own_error() {
    use ErrorClass::{Resource, Transient};
    let config = config().retry_for(Duration::ZERO);
    let (ends, _) = told(config, &[1, 2, 3], [unfinished(&[(0, Transient), (1, Resource), (2, Transient)])]).await;
    assert_eq!(ends, [(Expired, Some(Transient)), (Expired, Some(Resource)), (Expired, Some(Transient))]);
}

#[tokio::test(start_paused = true)]
async fn every_round_is_sorted_where_the_sink_asks_for_it() {
    let sink = ScriptedSink::new();
    sink.sort_by_key();
    sink.set_max_concurrency(1);
    sink.report_rows();
    sink.poison(|row| row.get("note") == Some(ValueRef::Text("bad")));
    let db = BatchSql::builder(sink.clone()).config(config()).start().unwrap();
    let rows = [(9, "n"), (1, "n"), (9, "bad"), (1, "bad"), (5, "n")];
    drop(versions(&db, &table("t", Conflict::update(["id"])), &rows).await);
    let batches: Vec<Vec<i64>> = sink.batches().iter().map(|rows| ids(rows)).collect();
    assert_eq!(batches, [vec![5], vec![1, 9]]);
}

/// Keeps the text of logged errors.
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = String::new();
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| text += &format!("{value:?} "));
        self.0.lock().unwrap().push(text);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn one_row_is_no_part_of_an_atomic_batch() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let _guard = batchsql_testserver::subscribe(Log(Arc::clone(&log)));
    let config = config().isolation(Isolation::AtomicBatch);
    let check = async |rows: &[i64], expected| {
        let mut written = Written::default();
        written.rejected.push((0, SinkError::new(ErrorClass::Row, "bad")));
        let (ends, _) = told(config.clone(), rows, [Ok(written)]).await;
        assert_eq!(ends[0].0, Rejected);
        let is_logged = std::mem::take(&mut *log.lock().unwrap()).iter().any(|text| text.contains("must be atomic"));
        assert_eq!(is_logged, expected, "{rows:?}");
    };
    check(&[1], false).await;
    check(&[1, 2], true).await;
}

#[tokio::test(start_paused = true)]
async fn a_row_that_the_database_leaves_out_supersedes_none() {
    // A trigger drops the last version: the one before it is sent next, and is in the table at the end.
    let ignored = |rows: &[u32]| {
        let mut written = Written::default();
        written.ignored = rows.to_vec();
        Ok(written)
    };
    let check = async |answers: Vec<Result<Written, SinkError>>, expected: &[OutcomeKind], given: &[&[i64]]| {
        let sink = Told::default();
        sink.0.lock().unwrap().answers.extend(answers);
        let db = BatchSql::builder(sink.clone()).config(config()).start().unwrap();
        let receipts =
            versions(&db, &table("t", Conflict::update(["id"])), &[(1, "a"), (1, "b"), (2, "n"), (1, "c")]).await;
        assert_eq!(kinds(receipts).await, expected);
        assert_eq!(sink.0.lock().unwrap().given, given);
    };
    use OutcomeKind::{Ignored, Superseded, Written as W};
    check(vec![ignored(&[])], &[Superseded, Superseded, W, W], &[&[2, 1]]).await;
    // The last version is ignored: the one before it is sent, then the last one again, as if in their order.
    check(vec![ignored(&[1])], &[Superseded, W, W, W], &[&[2, 1], &[1], &[1]]).await;
    check(vec![ignored(&[1]), ignored(&[]), ignored(&[0])], &[Superseded, W, W, Ignored], &[&[2, 1], &[1], &[1]]).await;
    check(vec![ignored(&[1]), ignored(&[0])], &[W, W, W, W], &[&[2, 1], &[1], &[1], &[1], &[1]]).await;
    let always = vec![ignored(&[1]), ignored(&[0]), ignored(&[0]), ignored(&[0]), ignored(&[0])];
    check(always, &[Ignored, Ignored, W, Ignored], &[&[2, 1], &[1], &[1], &[1], &[1]]).await;
}

/// A table whose trigger ignores updates that change nothing.
#[derive(Clone, Default)]
struct NoRedundantUpdates(Arc<Mutex<std::collections::HashMap<i64, batchsql_core::Value>>>);

impl Sink for NoRedundantUpdates {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "no redundant updates"
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), rows: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        let mut table = self.0.lock().unwrap();
        let mut written = Written::default();
        for number in 0..rows.len() {
            let row = rows.to_row(number);
            let note = row.get("note").unwrap().to_value();
            if table.insert(id(&row), note.clone()) == Some(note) {
                written.ignored.push(number as u32);
            }
        }
        Ok(written)
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_version_never_stays_over_a_newer_one_that_was_left_out() {
    let sink = NoRedundantUpdates::default();
    let db = BatchSql::builder(sink.clone()).config(config()).start().unwrap();
    let schema = table("t", Conflict::update(["id"]));
    for receipt in versions(&db, &schema, &[(1, "v2")]).await {
        assert!(receipt.await.is_written());
    }
    for receipt in versions(&db, &schema, &[(1, "v1"), (1, "v2")]).await {
        assert!(receipt.await.is_written());
    }
    assert_eq!(sink.0.lock().unwrap()[&1], "v2".into());
}
