//! Which rows are accepted, which submitters wait, and which capacity is held.

use std::sync::OnceLock;
use std::time::Duration;

use batchsql_core::{
    Attempt, BatchSql, ColumnType, Conflict, DynRow, Limits, Row, RowError, RowWriter, Rows, Schema, Sink, SinkError,
    Value, ValueRef, ValueRules, Written,
};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{HOUR, Recorder, config, pipeline, plain, row, settle, table};

#[tokio::test(start_paused = true)]
async fn a_full_buffer_makes_submit_wait_until_a_batch_is_written() {
    let (db, sink) = pipeline(config().buffer_size(20));
    sink.script([Step::Hang, Step::Hang]);
    for id in 0..20 {
        db.try_submit(&row(&plain(), id)).unwrap();
    }
    assert!(db.try_submit(&row(&plain(), 20)).unwrap_err().is_full());
    let timed_out = db.submit_timeout(&row(&plain(), 20), Duration::from_secs(1)).await;
    assert!(timed_out.unwrap_err().is_full());
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { db.submit(&row(&plain(), 20)).await }
    });
    settle().await;
    assert!(!waiting.is_finished());
    sink.release(1);
    waiting.await.unwrap().unwrap();
    sink.release(1);
    assert_eq!(db.flush().await.unwrap().written(), 21);
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_like_rows() {
    let big = |id: i64| plain().row().set("id", id).unwrap().set("note", "x".repeat(400)).unwrap().finish().unwrap();
    let (db, sink) = pipeline(config().buffer_bytes(1000).flush_bytes(1000));
    sink.script([Step::Hang]);
    db.try_submit(&big(1)).unwrap();
    db.try_submit(&big(2)).unwrap();
    assert!(db.try_submit(&big(3)).unwrap_err().is_full());
    sink.release(1);
    db.flush().await.unwrap();
    db.try_submit(&big(3)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_submit_is_not_accepted_and_holds_nothing() {
    let (db, sink) = pipeline(config().buffer_size(10));
    sink.script([Step::Hang]);
    for id in 0..10 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    for id in 100..200 {
        let cancelled = row(&plain(), id);
        let submit = db.submit(&cancelled);
        assert!(tokio::time::timeout(Duration::from_millis(1), submit).await.is_err());
    }
    sink.release(1);
    for id in 10..20 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.accepted, report.balance.written()), (20, 20));
    assert!(sink.applied().iter().all(|row| crate::support::id(row) < 100));
}

#[tokio::test(start_paused = true)]
async fn open_batches_that_hold_all_the_room_are_written_when_someone_waits() {
    // Neither table ever has flush_size rows, and flush_interval is an hour.
    let (db, sink) = pipeline(config().buffer_size(10).flush_size(10));
    let (a, b) = (table("a", Conflict::none()), table("b", Conflict::none()));
    for id in 0..50 {
        db.submit_timeout(&row(if id % 2 == 0 { &a } else { &b }, id), Duration::from_secs(1)).await.unwrap();
    }
    db.flush().await.unwrap();
    assert_eq!(sink.applied().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn many_rows_in_one_call_are_accepted_in_order() {
    let (db, sink) = pipeline(config().flush_size(7).max_concurrency(1));
    let rows: Vec<DynRow> = (0..1000).map(|id| row(&plain(), id)).collect();
    assert_eq!(db.submit_all(rows.iter()).await.unwrap(), 1000);
    db.flush().await.unwrap();
    assert_eq!(crate::support::ids(&sink.applied()), (0..1000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn submit_all_says_how_many_rows_were_accepted_before_a_bad_one() {
    let (db, sink) = pipeline(config());
    let huge = plain().row().set("id", 7_i64).unwrap().set("note", "x".repeat(64 << 20)).unwrap().finish().unwrap();
    let rows = (0..100).map(|id| if id == 77 { huge.clone() } else { row(&plain(), id) });
    let error = db.submit_all(rows).await.unwrap_err();
    assert_eq!(error.accepted(), 77);
    assert!(error.submit_error().row_error().unwrap().is_too_large());
    db.flush().await.unwrap();
    assert_eq!(sink.applied().len(), 77);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_can_never_fit_is_refused_at_once() {
    let recorder = Recorder::default();
    let config = config().buffer_bytes(100).flush_bytes(100);
    let db = BatchSql::builder(ScriptedSink::new()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
    let huge = plain().row().set("id", 1_i64).unwrap().set("note", "x".repeat(101)).unwrap().finish().unwrap();
    let error = db.submit(&huge).await.unwrap_err();
    assert!(error.row_error().unwrap().is_too_large());
    assert!(error.to_string().contains("raise buffer_bytes"), "{error}");
    assert_eq!(recorder.0.lock().unwrap().refused, ["invalid"]);
    assert_eq!(db.balance().accepted, 0);
}

#[test]
fn values_are_checked_when_a_dynamic_row_is_built() {
    let schema = plain();
    let check = |result: Result<DynRow, RowError>, part: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    };
    check(schema.row().finish(), "\"id\" has no value");
    check(schema.row().set("id", "text").and_then(|b| b.finish()), "expects i64 but got text");
    check(schema.row().set("id", Value::Null).and_then(|b| b.finish()), "\"id\" is NULL");
    check(schema.row().set("id", u64::MAX).and_then(|b| b.finish()), "outside the range of i64");
    check(schema.row().set("nope", 1_i64).and_then(|b| b.finish()), "the columns are id, note");
    check(schema.row().set_all([Value::I64(1)]).and_then(|b| b.finish()), "1 values for 2 columns");
    let keyed = table("k", Conflict::ignore(["id"]));
    check(keyed.row().set("id", Value::Null).and_then(|b| b.finish()), "part of the key; give a value");
    let three = [Value::I64(1), Value::Null, Value::Null];
    check(schema.row().set_all(three).and_then(|b| b.finish()), "3 values for 2 columns");
    assert!(schema.row().set("id", 5_i16).unwrap().finish().is_ok());
}

/// A hand-written row that breaks the contract.
struct Liar(fn(&mut RowWriter<'_>) -> Result<(), RowError>);

impl Row for Liar {
    fn schema(&self) -> &Schema {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(plain)
    }

    fn variable_len(&self) -> usize {
        1
    }

    fn key_hash(&self) -> u64 {
        0
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        (self.0)(writer)
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_breaks_off_leaves_nothing_behind() {
    let (db, sink) = pipeline(config());
    db.submit(&row(&plain(), 1)).await.unwrap();
    let refusals: [(Liar, &str); 7] = [
        (Liar(|w| w.i64(9)), "\"note\" has no value"),
        (Liar(|w| w.text("9")), "expects i64 but got text"),
        (Liar(|w| w.null()), "\"id\" is NULL"),
        (Liar(|w| w.i64(9).and_then(|()| w.text("9")).and_then(|()| w.i64(9))), "more values than the 2"),
        (Liar(|w| w.i64(9).and_then(|()| w.text("999"))), "returned 1 bytes but write() wrote 3"),
        (Liar(|w| w.i64(9).and_then(|()| w.bytes(b"9"))), "expects text but got bytes"),
        (Liar(|w| w.i64(9).and_then(|()| w.value(ValueRef::Decimal("1e5")))), "not a decimal number"),
    ];
    for (liar, part) in refusals {
        let error = db.submit(&liar).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} does not contain {part:?}");
    }
    let panics = Liar(|w| w.i64(9).map(|()| panic!("in the middle of a row")));
    let panicked = tokio::spawn({
        let db = db.clone();
        async move { db.submit(&panics).await }
    });
    assert!(panicked.await.unwrap_err().is_panic());
    db.submit(&row(&plain(), 2)).await.unwrap();
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.accepted, balance.written()), (2, 2));
    assert_eq!(crate::support::ids(&sink.applied()), [1, 2]);
    // Capacity for exactly buffer_size rows is left: nothing leaked.
    sink.script([Step::Hang; 10]);
    for id in 0..100 {
        db.try_submit(&row(&plain(), id)).unwrap();
    }
    assert!(db.try_submit(&row(&plain(), 0)).unwrap_err().is_full());
}

/// A sink that refuses values, like databases.
pub(crate) struct Strict;

impl Sink for Strict {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "strict"
    }

    fn limits(&self, _: &Schema) -> Limits {
        Limits::default().with_max_columns(3).with_values(ValueRules {
            refuse_nul_in_text: true,
            refuse_nan: true,
            refuse_infinity: true,
            refuse_u64_above_i64: true,
            ..ValueRules::default()
        })
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), _: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        Ok(Written::default())
    }
}

#[tokio::test(start_paused = true)]
async fn values_that_the_database_cannot_hold_are_refused_at_the_caller() {
    let db = BatchSql::builder(Strict).config(config()).start().unwrap();
    let check = async |ty, value: Value, part: &str| {
        let schema = Schema::builder("t").column("v", ty).build().unwrap();
        let result = db.submit(&schema.row().set("v", value).unwrap().finish().unwrap()).await;
        match result {
            Ok(()) => assert_eq!(part, "", "{ty} should have been refused"),
            Err(error) => {
                assert!(error.row_error().unwrap().is_out_of_range());
                assert!(!part.is_empty() && error.to_string().contains(part), "{error}");
            }
        }
    };
    check(ColumnType::Text, "a\0b".into(), "NUL").await;
    check(ColumnType::Text, "ab".into(), "").await;
    check(ColumnType::F64, f64::NAN.into(), "NaN").await;
    check(ColumnType::F32, f32::NAN.into(), "NaN").await;
    check(ColumnType::F64, f64::INFINITY.into(), "infinite").await;
    check(ColumnType::F64, f64::MAX.into(), "").await;
    check(ColumnType::U64, (i64::MAX as u64 + 1).into(), "above i64::MAX").await;
    check(ColumnType::U64, (i64::MAX as u64).into(), "").await;
    let wide = (0..4).fold(Schema::builder("wide"), |b, n| b.column(format!("c{n}"), ColumnType::I64)).build().unwrap();
    let row = wide.row().set_all((0..4).map(Value::I64)).unwrap().finish().unwrap();
    let error = db.submit(&row).await.unwrap_err();
    assert!(error.to_string().contains("4 columns are more than the 3 values"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn waits_for_room_are_reported() {
    let recorder = Recorder::default();
    let sink = ScriptedSink::new();
    let config = config().buffer_size(10);
    let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
    sink.script([Step::Delay(Duration::from_secs(1))]);
    for id in 0..11 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    assert_eq!(recorder.0.lock().unwrap().waits, 1);
    db.flush().await.unwrap();
    assert_eq!(recorder.0.lock().unwrap().received, 11);
}
