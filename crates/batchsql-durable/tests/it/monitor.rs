//! What an intake reports: the age of its oldest row, how far it has read, and counts that add up to those of its handle.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use batchsql_core::{BatchSql, DurableGauges, DurableProgress, ErrorClass, MetricsReporter, PipelineConfig};
use batchsql_durable::{DurableBatchSql, DurableExt};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{LONG, keyed, options, plain, row, until};

/// Keeps what it is told.
#[derive(Clone, Default)]
struct Observer(Arc<Mutex<Told>>);

#[derive(Clone, Default)]
struct Told {
    gauges: Vec<DurableGauges>,
    progress: Vec<DurableProgress>,
    syncs: Vec<Duration>,
}

impl MetricsReporter for Observer {
    fn durable_gauges(&self, gauges: &DurableGauges) {
        self.0.lock().unwrap().gauges.push(gauges.clone());
    }

    fn durable_progress(&self, progress: &DurableProgress) {
        self.0.lock().unwrap().progress.push(*progress);
    }

    fn durable_synced(&self, took: Duration) {
        self.0.lock().unwrap().syncs.push(took);
    }
}

impl Observer {
    fn last(&self) -> DurableGauges {
        self.0.lock().unwrap().gauges.last().cloned().unwrap_or_default()
    }

    /// Of the progress.
    fn sum(&self, of: impl Fn(&DurableProgress) -> u64) -> u64 {
        self.0.lock().unwrap().progress.iter().map(of).sum()
    }
}

/// One row in a batch, one partition, and an observer.
async fn watched(sink: &ScriptedSink, folder: &Path) -> (DurableBatchSql, Observer) {
    let observer = Observer::default();
    let db = BatchSql::builder(sink.clone())
        .config(PipelineConfig::default().flush_size(1).max_batch_rows(1))
        .metrics_reporter(observer.clone())
        .durable(options(folder).partitions(1))
        .start()
        .await
        .unwrap();
    (db, observer)
}

/// Times in the log have no fractions of a millisecond.
fn millis(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// Submits a version, and returns between which times.
async fn submit(db: &DurableBatchSql, version: i64) -> [u128; 2] {
    let begun = millis(SystemTime::now());
    db.submit(&row(&keyed(), 1, version)).await.unwrap();
    let ended = millis(SystemTime::now());
    // The next row has a later time.
    until("the clock has moved", || millis(SystemTime::now()) > ended).await;
    [begun, ended]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_row_is_the_first_that_has_not_ended() {
    let dir = tempfile::tempdir().unwrap();
    let sink = ScriptedSink::new();
    let (db, observer) = watched(&sink, dir.path()).await;
    assert_eq!(db.stats().oldest_unsettled, None, "there is no row");
    sink.script([Step::Hang, Step::Hang, Step::Hang]);
    let mut times = Vec::new();
    for version in 0..3 {
        times.push(submit(&db, version).await);
    }
    for [begun, ended] in &times[..2] {
        let oldest = || db.stats().oldest_unsettled.map(millis);
        until("the row before has ended", || oldest().is_some_and(|oldest| oldest >= *begun)).await;
        assert!(oldest().is_some_and(|oldest| oldest <= *ended), "{oldest:?} {times:?}", oldest = oldest());
        sink.release(1);
    }
    // The third row waits, and the next start knows since when.
    let rows_left = |db: &DurableBatchSql| db.stats().log.unsettled_rows;
    until("two rows have ended", || rows_left(&db) == 1).await;
    until("the third is the oldest", || millis(db.stats().oldest_unsettled.unwrap()) >= times[2][0]).await;
    db.close(Duration::ZERO).await;
    let left = observer.last();
    assert!((times[2][0]..=times[2][1]).contains(&millis(left.oldest_unsettled.unwrap())));
    assert_eq!((&*left.tables[0].table, left.tables[0].unsettled_rows, left.tables[0].read_rows), ("keyed", 1, 1));
    drop(db);

    let sink = ScriptedSink::new();
    sink.script([Step::Hang]);
    let (db, observer) = watched(&sink, dir.path()).await;
    until("the time is read from the log", || db.stats().oldest_unsettled == left.oldest_unsettled).await;
    sink.release(1);
    db.flush().await.unwrap();
    assert_eq!(db.stats().oldest_unsettled, None);
    db.close(LONG).await;
    let told = observer.0.lock().unwrap().gauges.clone();
    assert!(told.iter().all(|gauges| gauges.recovered_rows == 1 && gauges.recovery > Duration::ZERO), "{told:?}");
    // Before its block is read there is an estimate, which is never too late.
    let is_known = |gauges: &DurableGauges| gauges.oldest_unsettled <= left.oldest_unsettled;
    assert!(told.iter().all(is_known), "{told:?}");
    let last = observer.last();
    assert_eq!((last.oldest_unsettled, last.tables[0].unsettled_rows, last.tables[0].read_rows), (None, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_have_ended_behind_one_that_waits_are_not_unsettled_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let sink = ScriptedSink::new();
    sink.poison_as(ErrorClass::Transient, |row| crate::support::numbers(row).0 == 0);
    let (db, _) = watched(&sink, dir.path()).await;
    db.submit_all((0..20).map(|n| row(&plain(), n, n))).await.unwrap();
    until("the others are written", || db.stats().balance.written() == 19).await;
    assert_eq!(db.close(Duration::ZERO).await.left_in_log, 1);
    drop(db);

    let (db, observer) = watched(&sink, dir.path()).await;
    let read = |gauges: &DurableGauges| gauges.tables.first().map_or(0, |table| table.read_rows);
    until("the row is read", || read(&observer.last()) > 0).await;
    db.close(Duration::ZERO).await;
    let told = observer.0.lock().unwrap().gauges.clone();
    let tables = told.iter().flat_map(|gauges| &gauges.tables);
    let others: Vec<_> = tables.filter(|table| table.unsettled_rows != 1 || table.read_rows > 1).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// However often the intake reports, nothing counts twice and nothing is left out at the end.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_reported_adds_up_to_what_the_handle_shows() {
    let dir = tempfile::tempdir().unwrap();
    let sink = ScriptedSink::new();
    sink.poison(|row| crate::support::numbers(row).1 == 13);
    sink.break_table("plain", ErrorClass::Schema);
    let (db, observer) = watched(&sink, dir.path()).await;
    db.submit_all((0..20).map(|n| row(&keyed(), n, n))).await.unwrap();
    until("the first rows have ended", || db.stats().log.unsettled_rows == 0).await;
    until("a report has them", || observer.sum(|progress| progress.rows) == 20).await;
    db.submit_all((0..5).map(|n| row(&plain(), n, n))).await.unwrap();
    db.close(Duration::ZERO).await;
    let (stats, gauges) = (db.stats(), observer.last());
    let reported = |of: fn(&DurableProgress) -> u64| observer.sum(of);
    assert_eq!((reported(|it| it.rows), stats.acknowledged), (25, 25));
    assert_eq!((reported(|it| it.dead_letters), stats.dead_letters), (1, 1));
    assert_eq!(reported(|it| it.blocks), stats.log.appended_blocks);
    assert_eq!(reported(|it| it.bytes), stats.log.appended_bytes);
    assert_eq!(reported(|it| it.written_again), stats.written_again);
    assert_eq!((gauges.log_bytes, gauges.log_bytes_limit), (stats.log.bytes, stats.log.bytes_limit));
    let rows: Vec<_> = gauges.tables.iter().map(|table| (&*table.table, table.unsettled_rows)).collect();
    assert_eq!(rows, [("keyed", 0), ("plain", 5)]);
    let syncs = observer.0.lock().unwrap().syncs.clone();
    assert_eq!((syncs.len() as u64, syncs.iter().sum::<Duration>()), (stats.log.syncs.count, stats.log.syncs.total));
}
