//! The policies of the pipeline on real databases: parked tables, atomic batches, abandoned writes.

use std::sync::mpsc;
use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, ErrorClass, Isolation, OutcomeKind, PipelineConfig, Receipt};
use batchsql_sqlite::SqliteSink;

use crate::support::{HOUR, memory, read, row, schema};

fn pipeline(sink: &SqliteSink, config: PipelineConfig) -> BatchSql {
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// Batches of ten rows.
fn config() -> PipelineConfig {
    PipelineConfig::default().flush_size(10).flush_interval(Duration::from_millis(5))
}

async fn submit(db: &BatchSql, ids: std::ops::Range<i64>) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for id in ids {
        receipts.push(db.submit_tracked(&row(&schema(Conflict::none()), id, "n")).await.unwrap());
    }
    receipts
}

#[tokio::test]
async fn rows_wait_for_a_table_that_does_not_exist_yet() {
    let sink = memory("CREATE TABLE other (id INTEGER)").await;
    let db = pipeline(&sink, config());
    let receipts = submit(&db, 0..50).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(db.balance().in_flight(), 50);
    sink.call(|conn| conn.execute_batch("CREATE TABLE t (id INTEGER, note TEXT)")).await.unwrap();
    for receipt in receipts {
        assert!(receipt.await.is_written());
    }
    assert_eq!(read(&sink, "SELECT count(*), count(DISTINCT id) FROM t").await, ["50|50"]);
}

#[tokio::test]
async fn rows_wait_for_a_connection_that_may_only_read_for_now() {
    let sink = memory("CREATE TABLE t (id INTEGER, note TEXT); PRAGMA query_only = ON").await;
    let db = pipeline(&sink, config());
    let receipts = submit(&db, 0..30).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((db.balance().in_flight(), db.balance().written()), (30, 0));
    sink.call(|conn| conn.execute_batch("PRAGMA query_only = OFF")).await.unwrap();
    for receipt in receipts {
        assert!(receipt.await.is_written());
    }
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["30"]);
}

#[tokio::test]
async fn an_atomic_batch_is_written_whole_or_not_at_all() {
    let sink = memory("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT)").await;
    let db = pipeline(&sink, config().isolation(Isolation::AtomicBatch).flush_interval(HOUR));
    let good = submit(&db, 0..10).await;
    // Row 5 already exists.
    let bad = submit(&db, 5..6).await;
    let with_it = submit(&db, 20..29).await;
    for receipt in good {
        assert!(receipt.await.is_written());
    }
    for receipt in bad.into_iter().chain(with_it) {
        let outcome = receipt.await;
        let failed = outcome.failure().unwrap();
        assert_eq!(
            (outcome.kind(), failed.class(), failed.code()),
            (OutcomeKind::Rejected, Some(ErrorClass::Row), Some("1555"))
        );
    }
    assert_eq!(read(&sink, "SELECT count(*), max(id) FROM t").await, ["10|9"]);
}

/// Keeps the writer thread busy from now on, until the sender is dropped.
async fn keep_busy(sink: &SqliteSink) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let sink = sink.clone();
    let (end, ended) = mpsc::channel();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let busy = tokio::spawn(async move {
        let work = move |_: &mut batchsql_sqlite::rusqlite::Connection| {
            begin.send(()).unwrap();
            let _ = ended.recv();
            Ok(())
        };
        sink.call(work).await.unwrap();
    });
    begun.await.unwrap();
    (end, busy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_only_waited_for_its_turn_is_tried_again() {
    let sink = memory("CREATE TABLE t (id INTEGER, note TEXT)").await;
    let db = pipeline(&sink, config().statement_timeout(Duration::from_secs(1)));
    db.prepare(&schema(Conflict::none())).await.unwrap();
    let (end, busy) = keep_busy(&sink).await;
    let receipts = submit(&db, 0..10).await;
    // Beyond the first timeout.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    drop(end);
    // A plain insert whose write had begun would end as unknown.
    for receipt in receipts {
        assert!(receipt.await.is_written());
    }
    busy.await.unwrap();
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_waits_for_its_turn_at_the_deadline_is_purged_and_not_written_later() {
    let sink = memory("CREATE TABLE t (id INTEGER, note TEXT)").await;
    let db = pipeline(&sink, config());
    db.prepare(&schema(Conflict::none())).await.unwrap();
    let (end, busy) = keep_busy(&sink).await;
    let receipts = submit(&db, 0..30).await;
    let report = db.close(Duration::from_millis(100)).await;
    assert_eq!((report.balance.purged(), report.balance.unknown()), (30, 0), "{}", report.balance);
    for receipt in receipts {
        assert_eq!(receipt.await.kind(), OutcomeKind::Purged);
    }
    drop(end);
    busy.await.unwrap();
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_a_write_never_interrupts_the_work_after_it() {
    // Slow writes that are abandoned at many points in time.
    let sink = memory("CREATE TABLE t (id INTEGER, note TEXT);
                       CREATE TRIGGER slow AFTER INSERT ON t WHEN NEW.id % 10 = 0 BEGIN
                           SELECT count(*) FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT i FROM n);
                       END")
        .await;
    let others = tokio::spawn({
        let sink = sink.clone();
        async move {
            for _ in 0..2000 {
                let sum = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT sum(i) FROM n";
                sink.call(move |conn| conn.query_row(sum, [], |row| row.get::<_, i64>(0))).await.expect("interrupted");
            }
        }
    });
    let mut rounds = 0;
    while !others.is_finished() {
        rounds += 1;
        let timeout = Duration::from_micros(50 + rounds * 37 % 3000);
        let config = config().statement_timeout(timeout).retry_for(Duration::ZERO);
        let db = pipeline(&sink, config);
        drop(submit(&db, 0..10).await);
        db.close(Duration::from_micros(rounds * 53 % 4000)).await;
    }
    others.await.unwrap();
    assert!(rounds > 20, "{rounds} rounds");
}
