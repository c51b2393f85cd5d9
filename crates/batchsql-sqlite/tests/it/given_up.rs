//! Batches that are abandoned before their commit: they are known not to be written, and never are.

use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, OutcomeKind, PipelineConfig};
use batchsql_sqlite::SqliteSink;

use crate::support::{HOUR, memory, read, row, schema};

fn pipeline(sink: &SqliteSink, statement_timeout: Duration, retry_for: Duration) -> BatchSql {
    let config = PipelineConfig::default()
        .statement_timeout(statement_timeout)
        .retry_for(retry_for)
        .flush_interval(Duration::from_millis(1));
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
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
    db.prepare(&schema(Conflict::none())).await.unwrap();
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
    db.prepare(&schema(Conflict::none())).await.unwrap();
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
    db.prepare(&schema(Conflict::none())).await.unwrap();
    let receipt = db.submit_tracked(&row(&schema(Conflict::none()), 1, "a")).await.unwrap();
    let report = db.close(Duration::from_millis(300)).await;
    assert_eq!((report.balance.purged(), report.balance.unknown()), (1, 0), "{}", report.balance);
    assert_eq!(receipt.await.kind(), OutcomeKind::Purged);
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["0"]);
}
