//! Rows that are submitted with one call: what the call reports, and that it accepts all of them or none.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, DynRow, OutcomeKind, Row, RowError, RowWriter, Schema, Value};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{FAR, HOUR, Recorder, config, id, ids, pipeline, plain, row, settle, table};

fn rows(schema: &Schema, ids: std::ops::Range<i64>) -> Vec<DynRow> {
    ids.map(|id| row(schema, id)).collect()
}

fn of_bytes(schema: &Schema, id: i64, bytes: usize) -> DynRow {
    schema.row().set("id", id).unwrap().set("note", "x".repeat(bytes)).unwrap().finish().unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_future_has_the_outcomes_of_all_rows_with_their_index() {
    let config = config().flush_interval(Duration::from_millis(100)).max_concurrency(2);
    let (db, sink) = pipeline(config);
    sink.poison(|row| id(row) % 250 == 7);
    let (a, b) = (table("a", Conflict::ignore(["id"])), plain());
    // Rows of two tables in turn; key 0 of table `a` comes twice.
    let mut all: Vec<DynRow> = (0..1000).map(|id| row(if id % 2 == 0 { &a } else { &b }, id)).collect();
    all.push(row(&a, 0));
    let outcomes = db.submit_all_tracked(&all).await.unwrap();
    let failed: Vec<_> = outcomes.failed.iter().map(|(index, outcome)| (*index, outcome.kind())).collect();
    assert_eq!(failed, [7, 257, 507, 757].map(|index| (index, OutcomeKind::Rejected)));
    let of_rows = outcomes.failed.iter().map(|(index, outcome)| outcome.failure().unwrap().row() == &all[*index]);
    assert!(of_rows.into_iter().all(|is_same| is_same));
    let count = |kind| outcomes.counts.get(kind);
    let counts = [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Rejected].map(count);
    assert_eq!((counts, outcomes.counts.total()), ([996, 1, 4], 1001));
    assert!(!outcomes.is_complete());
    assert!(db.submit_all_tracked(rows(&plain(), 2010..2020)).await.unwrap().is_complete());
    assert!(db.submit_all_tracked(Vec::<DynRow>::new()).await.unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_ends_the_call_after_the_others_have_their_outcomes() {
    let (db, sink) = pipeline(config().flush_interval(Duration::from_secs(1)));
    sink.poison(|row| id(row) == 3);
    let mut all = rows(&plain(), 0..100);
    all[77] = of_bytes(&plain(), 77, 64 << 20);
    let error = db.submit_all_tracked(&all).await.unwrap_err();
    assert_eq!((error.accepted(), error.outcomes().counts.get(OutcomeKind::Written)), (77, 76));
    assert_eq!(error.outcomes().failed[0].0, 3);
    assert!(error.submit_error().row_error().unwrap().is_too_large());
    assert!(error.to_string().starts_with("after 77 accepted rows: row of table \"t\""), "{error}");
    db.close(HOUR).await;
    let error = db.submit_all_tracked(&all).await.unwrap_err();
    assert_eq!((error.accepted(), error.submit_error().is_closed()), (0, true));
}

#[tokio::test(start_paused = true)]
async fn a_tracked_row_may_be_tried() {
    let (db, sink) = pipeline(config().buffer_size(10));
    sink.poison(|row| id(row) == 3);
    let receipts: Vec<_> = (0..10).map(|id| db.try_submit_tracked(&row(&plain(), id)).unwrap()).collect();
    assert!(db.try_submit_tracked(&row(&plain(), 10)).unwrap_err().is_full());
    for (index, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(receipt.await.is_written(), index != 3);
    }
}

#[tokio::test(start_paused = true)]
async fn rows_together_are_accepted_all_or_not_at_all() {
    let recorder = Recorder::default();
    let config = config().buffer_size(30).buffer_bytes(3000).flush_bytes(3000).flush_size(30);
    let sink = ScriptedSink::new();
    let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
    let (keyed, plain) = (table("k", Conflict::ignore(["id"])), plain());
    let mixed = |keys: i64, plain_rows: i64| {
        let keyed = (0..keys).map(|key| row(&keyed, key * FAR));
        keyed.chain((0..plain_rows).map(|id| row(&plain, id))).collect::<Vec<_>>()
    };
    let refused = |rows: &[DynRow]| {
        let before = db.balance().accepted;
        recorder.0.lock().unwrap().refused.clear();
        let error = db.try_submit_all(rows).unwrap_err();
        assert_eq!(db.balance().accepted, before, "no row is accepted");
        (error, recorder.0.lock().unwrap().refused.clone())
    };
    assert_eq!(db.try_submit_all(mixed(10, 10)).unwrap(), 20);

    let (error, reported) = refused(&mixed(5, 6));
    assert!(error.submit_error().is_full() && error.row().is_none(), "{error}");
    assert_eq!(reported, ["full"; 11]);
    let (error, _) = refused(&(0..3).map(|id| of_bytes(&plain, id, 900)).collect::<Vec<_>>());
    assert!(error.submit_error().is_full(), "not enough bytes: {error}");

    let (error, _) = refused(&mixed(10, 21));
    assert!(error.submit_error().is_too_many() && !error.submit_error().is_full());
    assert!(error.to_string().starts_with("none of the rows was accepted: 31 rows of "), "{error}");
    let (error, _) = refused(&(0..4).map(|id| of_bytes(&plain, id, 900)).collect::<Vec<_>>());
    assert!(error.submit_error().is_too_many(), "too many bytes: {error}");
    // The rest of a call that is too large is not even looked at.
    let (mut looked_at, kept) = (0, db.balance().accepted);
    let endless = std::iter::repeat_with(|| {
        looked_at += 1;
        assert!(looked_at <= 31, "{looked_at} rows");
        row(&plain, 1)
    });
    assert!(db.try_submit_all(endless).unwrap_err().submit_error().is_too_many());
    assert_eq!((looked_at, db.balance().accepted), (31, kept));

    let mut with_bad = mixed(2, 2);
    with_bad.push(of_bytes(&plain, 7, 3001));
    let (error, reported) = refused(&with_bad);
    assert_eq!((error.row(), reported.as_slice()), (Some(4), ["invalid"].as_slice()));
    assert!(error.to_string().starts_with("none of the rows was accepted, because of row 4: "), "{error}");

    // No capacity has leaked: exactly 10 rows fit.
    assert_eq!(db.try_submit_all(mixed(5, 5)).unwrap(), 10);
    assert_eq!(db.try_submit_all(Vec::<DynRow>::new()).unwrap(), 0);
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.accepted, report.balance.written(), report.balance.ignored()), (30, 25, 5));
    let (error, reported) = refused(&mixed(1, 1));
    assert!(error.submit_error().is_closed());
    assert_eq!(reported, ["closed"; 2]);
}

#[tokio::test(start_paused = true)]
async fn rows_together_keep_their_order() {
    let (db, sink) = pipeline(config().flush_size(3).max_concurrency(1));
    sink.script([Step::Hang]);
    assert_eq!(db.try_submit_all(rows(&plain(), 0..50)).unwrap(), 50);
    settle().await;
    sink.release(1);
    db.flush().await.unwrap();
    assert_eq!(ids(&sink.applied()), (0..50).collect::<Vec<_>>());
}

/// `close` may come at any moment: all rows are then accepted and written, or none.
#[test]
fn a_close_does_not_divide_rows() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let schema = table("k", Conflict::ignore(["id"]));
    let all: Vec<DynRow> = (0..60).map(|key| row(&schema, key * FAR)).collect();
    for _ in 0..100 {
        let guard = runtime.enter();
        let (db, sink) = pipeline(config());
        drop(guard);
        let (barrier, closing) = (Arc::new(Barrier::new(2)), db.clone());
        let accepted = std::thread::scope(|scope| {
            let submitter = scope.spawn(|| {
                barrier.wait();
                db.try_submit_all(&all).map_or(0, |accepted| accepted)
            });
            barrier.wait();
            let report = runtime.block_on(closing.close(HOUR));
            let accepted = submitter.join().unwrap();
            assert_eq!((report.balance.accepted, report.balance.written()), (accepted as u64, accepted as u64));
            accepted
        });
        assert!(accepted == 0 || accepted == 60, "{accepted} rows");
        assert_eq!(sink.applied().len(), accepted);
    }
}

/// A row that writes what it likes.
struct Raw(Schema, Vec<Value>);

impl Row for Raw {
    fn schema(&self) -> &Schema {
        &self.0
    }

    fn variable_len(&self) -> usize {
        1
    }

    fn key_hash(&self) -> u64 {
        0
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        self.1.iter().try_for_each(|value| writer.value(value.as_ref()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_says_what_a_submit_would_say_and_accepts_nothing() {
    let (db, _) = pipeline(config().buffer_bytes(1000).flush_bytes(1000));
    let raw = |values: &[Value]| Raw(plain(), values.to_vec());
    let text = |text: &str| Value::Text(text.into());
    let rows: Vec<Box<dyn Row>> = vec![
        Box::new(row(&plain(), 1)),
        Box::new(of_bytes(&plain(), 1, 1001)),
        Box::new(raw(&[Value::I64(1), text("x")])),
        Box::new(raw(&[Value::I64(1)])),
        Box::new(raw(&[Value::Null, text("x")])),
        Box::new(raw(&[Value::I64(1), text("too long")])),
        Box::new(raw(&[text("1"), text("x")])),
    ];
    let checked: Vec<_> = rows.iter().map(|row| db.validate(&**row).err()).collect();
    assert!(format!("{db:?}").contains("groups: 0"), "a check leaves nothing: {db:?}");
    assert_eq!(db.balance().accepted, 0);
    let submitted: Vec<_> = rows.iter().map(|row| db.try_submit(&**row).err()).collect();
    let submitted: Vec<_> = submitted.iter().map(|error| error.as_ref().and_then(|e| e.row_error().cloned())).collect();
    assert_eq!(checked, submitted);
    assert_eq!(checked.iter().filter(|error| error.is_none()).count(), 2);
    let again: Vec<_> = rows.iter().map(|row| db.validate(&**row).err()).collect();
    assert_eq!(again, submitted, "the same once the table is known");
}
