//! Tables that cannot be written for a while.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{
    Attempt, BatchSql, BeyondBudget, ColumnType, Conflict, ErrorClass, Isolation, MetricsReporter, OutcomeKind,
    PipelineConfig, PipelineGauges, Rows, Schema, Sink, SinkError, Written,
};
use batchsql_testkit::{ScriptedSink, Step};
use tokio::time::Instant;

use crate::support::{HOUR, config, id, pipeline, row, settle, table};

#[derive(Clone, Default)]
struct Parks(Arc<Mutex<(Vec<String>, usize)>>);

impl MetricsReporter for Parks {
    fn table_parked(&self, table: &str, class: ErrorClass) {
        self.0.lock().unwrap().0.push(format!("{table} parked: {class}"));
    }

    fn table_resumed(&self, table: &str, parked_for: Duration) {
        self.0.lock().unwrap().0.push(format!("{table} resumed after {}s", parked_for.as_secs()));
    }

    fn gauges(&self, gauges: &PipelineGauges) {
        self.0.lock().unwrap().1 = gauges.parked_tables;
    }
}

fn observed(config: PipelineConfig) -> (BatchSql, ScriptedSink, Parks) {
    let (sink, parks) = (ScriptedSink::new(), Parks::default());
    let builder = BatchSql::builder(sink.clone()).config(config).metrics_reporter(parks.clone());
    (builder.start().unwrap(), sink, parks)
}

#[tokio::test(start_paused = true)]
async fn a_broken_table_waits_while_others_are_written_and_is_resumed_by_a_probe() {
    let config = config().buffer_size(1000).park_for(HOUR);
    let (db, sink, parks) = observed(config);
    let (broken, sound) = (table("broken", Conflict::none()), table("sound", Conflict::none()));
    sink.break_table("broken", ErrorClass::Permission);
    for id in 0..100 {
        db.submit(&row(&broken, id)).await.unwrap();
        db.submit(&row(&sound, id)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(db.balance().written(), 100);
    assert_eq!(db.balance().in_flight(), 100, "nothing is given up before its time");
    // A probe every five seconds at most, plus one for each batch in flight; not many more.
    let tries = sink.writes() + sink.prepares();
    assert!((110..=1000).contains(&tries), "{tries} tries in ten minutes");
    assert_eq!(parks.0.lock().unwrap().1, 1);
    sink.mend_table("broken");
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.written(), balance.failed()), (200, 0));
    let told = parks.0.lock().unwrap().0.clone();
    assert_eq!(told[0], "broken parked: permission");
    assert!(told[1].starts_with("broken resumed after 60"), "{told:?}");
    db.close(HOUR).await;
    assert_eq!(parks.0.lock().unwrap().1, 0);
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_table_that_stays_broken_are_rejected_after_park_for() {
    let config = config().park_for(Duration::from_secs(30));
    let (db, sink, parks) = observed(config);
    let schema = table("t", Conflict::update(["id"]));
    sink.break_table("t", ErrorClass::Schema);
    let begin = Instant::now();
    let mut receipts = Vec::new();
    for id in 0..25 {
        receipts.push(db.submit_tracked(&row(&schema, id)).await.unwrap());
    }
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.rejected(), balance.in_flight()), (25, 0));
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_secs(30) && elapsed < Duration::from_secs(32), "{elapsed:?}");
    for (wanted, receipt) in (0..25).zip(receipts) {
        let outcome = receipt.await;
        let failed = outcome.failure().unwrap();
        assert_eq!(
            (id(failed.row()), failed.class(), failed.code()),
            (wanted, Some(ErrorClass::Schema), Some("broken"))
        );
    }
    // Rows that arrive later have their own time.
    let late = db.submit_tracked(&row(&schema, 99)).await.unwrap();
    let flushed = tokio::spawn({
        let db = db.clone();
        async move { db.flush().await }
    });
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(late.try_outcome().is_none());
    sink.mend_table("t");
    assert!(late.await.is_written());
    flushed.await.unwrap().unwrap();
    assert_eq!(parks.0.lock().unwrap().0.len(), 4, "{:?}", parks.0.lock().unwrap().0);
}

#[tokio::test(start_paused = true)]
async fn parked_rows_keep_the_order_of_their_key() {
    let (db, sink) = pipeline(config().park_for(HOUR).flush_size(3));
    let schema = table("t", Conflict::update(["id"]));
    sink.script([
        Step::Fail(ErrorClass::Schema),
        Step::Fail(ErrorClass::Schema),
        Step::Apply,
        Step::Fail(ErrorClass::Schema),
    ]);
    let mut expected = batchsql_testkit::Model::default();
    for version in 0..60 {
        let row = schema.row().set("id", version % 7).unwrap().set("note", format!("{version}")).unwrap();
        let row = row.finish().unwrap();
        expected.apply(&row);
        db.submit(&row).await.unwrap();
    }
    assert_eq!(db.flush().await.unwrap().failed(), 0);
    assert!(sink.tables() == expected);
}

#[tokio::test(start_paused = true)]
async fn rows_that_carry_a_missing_column_do_not_stop_those_that_do_not() {
    let (db, sink) = pipeline(config().park_for(HOUR).flush_interval(Duration::ZERO));
    let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("missing", ColumnType::I64);
    let schema = schema.build().unwrap();
    let with = |id: i64| schema.row().set("id", id).unwrap().set("missing", 1_i64).unwrap().finish().unwrap();
    let without = |id: i64| schema.row().set("id", id).unwrap().finish().unwrap();
    sink.script_prepare([Step::Fail(ErrorClass::Schema)]);
    let broken = db.submit_tracked(&with(1)).await.unwrap();
    settle().await;
    for id in 10..20 {
        assert!(db.submit_tracked(&without(id)).await.unwrap().await.is_written());
    }
    assert!(broken.await.is_written(), "the probe found the column");
}

#[tokio::test(start_paused = true)]
async fn closing_gives_a_parked_table_one_last_try() {
    for mended in [true, false] {
        let (db, sink) = pipeline(config().park_for(HOUR));
        sink.break_table("t", ErrorClass::Schema);
        for id in 0..35 {
            db.submit(&row(&table("t", Conflict::none()), id)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        if mended {
            sink.mend_table("t");
        }
        let begin = Instant::now();
        let report = db.close(HOUR).await;
        assert!(begin.elapsed() < Duration::from_secs(1), "close took {:?}", begin.elapsed());
        let expected = if mended { OutcomeKind::Written } else { OutcomeKind::Rejected };
        assert_eq!(report.balance.outcomes.get(expected), 35);
        assert_eq!(report.unwritten.len(), if mended { 0 } else { 35 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_bad_rows_can_park_its_table_instead_of_being_rejected() {
    let isolation = Isolation::Bisect { max_statements: 4, beyond: BeyondBudget::Park };
    let (db, sink) = pipeline(config().isolation(isolation).park_for(HOUR));
    let mended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    sink.poison({
        let mended = Arc::clone(&mended);
        move |_| !mended.load(std::sync::atomic::Ordering::SeqCst)
    });
    let mut receipts = Vec::new();
    for id in 0..10 {
        receipts.push(db.submit_tracked(&row(&table("t", Conflict::none()), id)).await.unwrap());
    }
    // Long enough for the first search, too short for a probe that halves on.
    tokio::time::sleep(Duration::from_micros(1)).await;
    mended.store(true, std::sync::atomic::Ordering::SeqCst);
    let balance = db.flush().await.unwrap();
    // The first search rejected the bad rows that it found; no row was rejected because of its batch.
    assert!(balance.rejected() <= 3, "{balance}");
    assert_eq!(balance.written() + balance.rejected(), 10);
    assert_eq!(sink.applied().len() as u64, balance.written());
}

/// Without a limit for parked rows they are still the rows of the pipeline alone.
#[tokio::test(start_paused = true)]
async fn closing_searches_on_however_long_rows_may_be_parked() {
    let isolation = Isolation::Bisect { max_statements: 2, beyond: BeyondBudget::Park };
    let (db, sink) = pipeline(config().isolation(isolation).park_for(Duration::MAX));
    sink.poison(|row| id(row) < 8);
    for id in 0..10 {
        db.submit(&row(&table("t", Conflict::none()), id)).await.unwrap();
    }
    let outcomes = db.close(HOUR).await.balance.outcomes;
    assert_eq!((outcomes.get(OutcomeKind::Written), outcomes.get(OutcomeKind::Rejected)), (2, 8), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn rejected_rows_park_no_table_however_long_rows_may_be_parked() {
    let isolation = Isolation::Bisect { max_statements: 4, beyond: BeyondBudget::Reject };
    let (db, sink) = pipeline(config().flush_size(1).isolation(isolation).park_for(Duration::MAX));
    sink.poison(|_| true);
    for id in 0..20 {
        db.submit(&row(&table("t", Conflict::none()), id)).await.unwrap();
    }
    let flushed = tokio::time::timeout(HOUR, db.flush()).await;
    assert_eq!(flushed.expect("no table is parked").unwrap().rejected(), 20);
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_parked_rows_and_cancelled_flushes_do_no_harm() {
    let (db, sink) = pipeline(config().park_for(HOUR));
    sink.break_table("t", ErrorClass::Schema);
    db.submit(&row(&table("t", Conflict::none()), 1)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), db.flush()).await.is_err());
    sink.mend_table("t");
    assert_eq!(db.flush().await.unwrap().written(), 1);
}

#[tokio::test(start_paused = true)]
async fn work_that_wrote_nothing_resumes_no_table() {
    let config = config().flush_interval(Duration::from_millis(10)).flush_size(50).park_for(Duration::from_secs(30));
    let (db, sink, parks) = observed(config);
    let schema = table("t", Conflict::update(["id"]));
    sink.break_table("t", ErrorClass::Schema);
    let begin = Instant::now();
    let first = db.submit_tracked(&row(&schema, 0)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    // They wait in other lanes, due but open; the flush seals them.
    for id in 1..90 {
        db.submit(&row(&schema, id)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    let flushing = db.clone();
    tokio::spawn(async move { flushing.flush().await });
    assert_eq!(first.await.kind(), OutcomeKind::Rejected);
    assert!(begin.elapsed() < Duration::from_secs(31), "{:?}", begin.elapsed());
    assert_eq!(parks.0.lock().unwrap().0, ["t parked: schema"]);
}

/// A sink without the column `note`.
struct WithoutNote;

impl Sink for WithoutNote {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "without note"
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), schema: &Schema) -> Result<(), SinkError> {
        let missing = || SinkError::new(ErrorClass::Schema, "no such column");
        if schema.column_index("note").is_some() { Err(missing()) } else { Ok(()) }
    }

    async fn write(&self, (): &mut (), (): &(), _: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        Ok(Written::default())
    }
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_table_without_order_need_not_wait_for_the_probe_of_others() {
    let config = config().park_for(HOUR).flush_interval(Duration::from_millis(10));
    let db = BatchSql::builder(WithoutNote).config(config).start().unwrap();
    let schema = table("t", Conflict::none());
    let parked = db.submit_tracked(&row(&schema, 1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    for id in 0..50 {
        let begin = Instant::now();
        let row = schema.row().set("id", id).unwrap().finish().unwrap();
        assert!(db.submit_tracked(&row).await.unwrap().await.is_written());
        assert!(begin.elapsed() <= Duration::from_millis(20), "row {id} took {:?}", begin.elapsed());
    }
    assert!(parked.try_outcome().is_none());
}
