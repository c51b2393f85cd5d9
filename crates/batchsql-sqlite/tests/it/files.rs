//! Databases in files: durability, other writers, timeouts.

use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, OutcomeKind, PipelineConfig};
use batchsql_sqlite::rusqlite::Connection;
use batchsql_sqlite::{SqliteOptions, SqliteSink};

use crate::support::{HOUR, row, schema};

fn database() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT)").unwrap();
    (dir, path)
}

fn count(path: &std::path::Path) -> i64 {
    Connection::open(path).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_close_returns_what_it_counted_is_in_the_file() {
    let (_dir, path) = database();
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path)).unwrap();
    assert_eq!(sink.path(), Some(path.as_path()));
    let db = BatchSql::builder(sink).start().unwrap();
    let schema = schema(Conflict::none());
    let producers: Vec<_> = (0..10)
        .map(|producer| {
            let (db, schema) = (db.clone(), schema.clone());
            tokio::spawn(async move {
                for n in 0..1_000 {
                    db.submit(&row(&schema, producer * 1_000 + n, "note")).await.unwrap();
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    let report = db.close(HOUR).await;
    // Read through another connection, while the sink is still open.
    assert_eq!((report.balance.written(), count(&path)), (10_000, 10_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_locked_by_another_writer_is_waited_for() {
    let (_dir, path) = database();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1000, 'other')").unwrap();
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path).busy_timeout(Duration::from_millis(20))).unwrap();
    let db = BatchSql::builder(sink).start().unwrap();
    let receipt = db.submit_tracked(&row(&schema(Conflict::none()), 1, "a")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(receipt.try_outcome().is_none());
    other.execute_batch("COMMIT").unwrap();
    assert!(receipt.await.is_written());
    assert_eq!(count(&path), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_given_up_by_its_timeout_leaves_the_connection_usable() {
    let (_dir, path) = database();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path).busy_timeout(Duration::from_secs(60))).unwrap();
    let config = PipelineConfig::default().statement_timeout(Duration::from_secs(2)).retry_for(Duration::ZERO);
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let schema = schema(Conflict::none());
    db.prepare(&schema).await.unwrap();
    let receipt = db.submit_tracked(&row(&schema, 1, "a")).await.unwrap();
    // It was not committed, so it is known not to be written.
    assert_eq!(receipt.await.kind(), OutcomeKind::Expired);
    other.execute_batch("COMMIT").unwrap();
    let receipt = db.submit_tracked(&row(&schema, 2, "b")).await.unwrap();
    assert!(receipt.await.is_written());
    db.close(HOUR).await;
    assert_eq!(count(&path), 1, "and never is");
}

#[tokio::test]
async fn an_existing_connection_can_be_used() {
    let (_dir, path) = database();
    let sink = SqliteSink::from_connection(Connection::open(&path).unwrap()).unwrap();
    let db = BatchSql::builder(sink).start().unwrap();
    db.submit(&row(&schema(Conflict::none()), 1, "a")).await.unwrap();
    assert!(db.close(HOUR).await.is_complete());
    assert_eq!(count(&path), 1);
}
