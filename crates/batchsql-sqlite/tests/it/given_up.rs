//! Batches that are abandoned: before their commit, they are known not to be written, and never are; during it, they may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use batchsql_core::{BatchInfo, BatchSql, Conflict, ErrorClass, MetricsReporter, OutcomeKind, PipelineConfig, Schema};
use batchsql_sqlite::SqliteSink;

use crate::support::{HOUR, memory, read, row, schema};

fn pipeline(sink: &SqliteSink, statement_timeout: Duration, retry_for: Duration) -> BatchSql {
    let config = PipelineConfig::default()
        .statement_timeout(statement_timeout)
        .retry_for(retry_for)
        .flush_interval(Duration::from_millis(1));
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// Prepares the table. The short timeout of a test may be over first on a busy machine.
async fn prepare(db: &BatchSql, schema: &Schema) {
    let prepared = async {
        while let Err(error) = db.prepare(schema).await {
            assert_eq!(error.class(), ErrorClass::Transient, "{error}");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), prepared).await.expect("the table is prepared");
}

/// A table whose inserts do not finish while there is a row in `slow`.
async fn slow_table() -> SqliteSink {
    memory(
        "CREATE TABLE t (id INTEGER, note TEXT); CREATE TABLE slow (n INTEGER);
         CREATE TRIGGER waits AFTER INSERT ON t WHEN (SELECT count(*) FROM slow) > 0 BEGIN
             SELECT count(*) FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n);
         END; INSERT INTO slow VALUES (1)",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_given_up_while_it_works_is_not_written() {
    let sink = slow_table().await;
    let db = pipeline(&sink, Duration::from_secs(2), Duration::ZERO);
    prepare(&db, &schema(Conflict::none())).await;
    let receipt = db.submit_tracked(&row(&schema(Conflict::none()), 1, "old")).await.unwrap();
    // A plain insert that may have been written would be unknown.
    assert_eq!(receipt.await.kind(), OutcomeKind::Expired);
    sink.call(|conn| conn.execute_batch("DELETE FROM slow")).await.unwrap();
    let receipt = db.submit_tracked(&row(&schema(Conflict::none()), 2, "new")).await.unwrap();
    assert!(receipt.await.is_written());
    db.close(HOUR).await;
    assert_eq!(read(&sink, "SELECT id, note FROM t").await, ["2|new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_given_up_while_it_works_is_tried_again_once() {
    let sink = slow_table().await;
    let db = pipeline(&sink, Duration::from_secs(1), HOUR);
    prepare(&db, &schema(Conflict::none())).await;
    let receipt = db.submit_tracked(&row(&schema(Conflict::none()), 1, "a")).await.unwrap();
    // Beyond the first timeout.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(receipt.try_outcome().is_none());
    sink.call(|conn| conn.execute_batch("DELETE FROM slow")).await.unwrap();
    assert!(receipt.await.is_written());
    db.close(HOUR).await;
    assert_eq!(read(&sink, "SELECT id, note FROM t").await, ["1|a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_close_leaves_nothing_behind() {
    let sink = slow_table().await;
    let db = pipeline(&sink, HOUR, HOUR);
    prepare(&db, &schema(Conflict::none())).await;
    let receipt = db.submit_tracked(&row(&schema(Conflict::none()), 1, "a")).await.unwrap();
    let report = db.close(Duration::from_millis(300)).await;
    assert_eq!((report.balance.purged(), report.balance.unknown()), (1, 0), "{}", report.balance);
    assert_eq!(receipt.await.kind(), OutcomeKind::Purged);
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["0"]);
}

/// Lets a commit continue when the pipeline has given it up.
struct Release {
    is_committing: Arc<AtomicBool>,
    held: Sender<()>,
}

impl MetricsReporter for Release {
    fn batch_retried(&self, _: &BatchInfo<'_>, _: ErrorClass) {
        if self.is_committing.load(Ordering::SeqCst) {
            let _ = self.held.send(());
        }
    }
}

/// Whether the attempt without a reply or another writer wrote the row is not asked: a row that another writer stored before
/// may be equal too.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_under_ignore_that_is_given_up_during_its_commit_ends_as_ignored() {
    let sink = memory("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT)").await;
    let is_committing = Arc::new(AtomicBool::new(false));
    let (held, released) = channel();
    let config = PipelineConfig::default().statement_timeout(Duration::from_secs(1)).retry_for(HOUR);
    let release = Release { is_committing: Arc::clone(&is_committing), held };
    let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(release).start().unwrap();
    let schema = schema(Conflict::ignore(["id"]));
    prepare(&db, &schema).await;
    sink.call(move |conn| {
        let mut first = Some(released);
        let _ = conn.commit_hook(Some(move || {
            if let Some(released) = first.take() {
                is_committing.store(true, Ordering::SeqCst);
                let _ = released.recv_timeout(Duration::from_secs(60));
            }
            // Commits.
            false
        }));
        Ok(())
    })
    .await
    .unwrap();
    let receipt = db.submit_tracked(&row(&schema, 1, "a")).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(receipt.await.kind(), OutcomeKind::Ignored);
    db.close(HOUR).await;
    assert_eq!(read(&sink, "SELECT id, note FROM t").await, ["1|a"]);
}
