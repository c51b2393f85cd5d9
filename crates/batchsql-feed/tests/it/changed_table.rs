//! A table that is changed while rows wait for it: its rows wait until it is repaired, and none is in the dead letters.

use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, PipelineConfig, Schema, Sink};
use batchsql_feed::file::{FileFeed, FileOptions};
use batchsql_mysql::MySqlSink;
use batchsql_mysql::sqlx::MySqlConnection;
use batchsql_postgres::PostgresSink;
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection};
use batchsql_testserver::{Kind, dsn, unique};

const LONG: Duration = Duration::from_secs(60);
const LINES: i64 = 500;

/// A change, what the advice names, and its repair.
const CHANGES: [(&str, &str, &str); 3] = [
    ("ADD COLUMN more BIGINT NOT NULL", "more", "DROP COLUMN more"),
    ("DROP COLUMN note", "note", "ADD COLUMN note VARCHAR(10)"),
    ("RENAME COLUMN note TO other", "note", "RENAME COLUMN other TO note"),
];

/// Feeds a file while the table is locked and changed: `change` is called when lines wait, `repair` when the table is parked.
async fn feed<S: Sink>(
    sink: S,
    table: &str,
    advice: &str,
    is_exact: bool,
    change: impl AsyncFnOnce(),
    repair: impl AsyncFnOnce(),
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.ndjson");
    let line = |id: i64| format!("{{\"id\":{id},\"note\":\"n{id}\"}}\n");
    std::fs::write(&path, (0..LINES).map(line).collect::<String>()).unwrap();
    let schema = Schema::builder(table).column("id", ColumnType::I64).column("note", ColumnType::Text).build().unwrap();
    let options = FileOptions::new(&path, &schema);
    let options = if is_exact { options.exactly_once(unique("changed")) } else { options };
    let config = PipelineConfig::default().flush_size(50).flush_interval(Duration::from_millis(1));
    let feed = FileFeed::start(BatchSql::builder(sink).config(config), options).await.unwrap();
    change().await;
    let why = async {
        loop {
            let parked = feed.pipeline().health().parked;
            let why = parked.first().map(|parked| parked.error.to_string());
            if let Some(why) = why.or_else(|| feed.waiting().map(|waiting| waiting.reason)) {
                return why;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let why = tokio::time::timeout(LONG, why).await.expect("the table is parked");
    assert!(why.contains(advice), "{why}");
    repair().await;
    assert_eq!(tokio::time::timeout(LONG, feed.flush()).await.expect("it goes on").unwrap(), LINES as u64);
    assert!(feed.stopped().is_none());
    feed.close(LONG).await;
    let letters = std::fs::read_to_string(folder.path().join("rows.ndjson.dead-letters.ndjson")).unwrap_or_default();
    assert_eq!(letters, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_postgres_wait_for_its_repair() {
    for ((change, advice, repair), is_exact) in CHANGES.into_iter().flat_map(|change| [(change, false), (change, true)])
    {
        let table = unique("changed");
        let mut other = PgConnection::connect(&dsn(Kind::Postgres)).await.unwrap();
        let mut look = PgConnection::connect(&dsn(Kind::Postgres)).await.unwrap();
        other.execute(&*format!("CREATE TABLE {table} (id BIGINT NOT NULL, note VARCHAR(10))")).await.unwrap();
        other.execute(&*format!("BEGIN; LOCK TABLE {table}")).await.unwrap();
        let sink = PostgresSink::connect(&dsn(Kind::Postgres)).await.unwrap();
        let changing = async || {
            let waits = format!("SELECT 1 FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted");
            let until = async {
                while look.fetch_optional(&*waits).await.unwrap().is_none() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(LONG, until).await.expect("rows wait for the table");
            other.execute(&*format!("ALTER TABLE {table} {change}; COMMIT")).await.unwrap();
        };
        let mut repairing = PgConnection::connect(&dsn(Kind::Postgres)).await.unwrap();
        let repaired = async || {
            repairing.execute(&*format!("ALTER TABLE {table} {repair}")).await.unwrap();
        };
        feed(sink, &table, advice, is_exact, changing, repaired).await;
        let whole = format!("SELECT 1 FROM {table} HAVING count(DISTINCT id) = {LINES} AND count(*) = {LINES}");
        let found = look.fetch_optional(&*whole).await.unwrap();
        assert!(found.is_some(), "{change}, exactly once {is_exact}");
        look.execute(&*format!("DROP TABLE {table}")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_mysql_wait_for_its_repair() {
    for (change, advice, repair) in CHANGES {
        let table = unique("changed");
        let mut other = MySqlConnection::connect(&dsn(Kind::MySql)).await.unwrap();
        let mut look = MySqlConnection::connect(&dsn(Kind::MySql)).await.unwrap();
        other.execute(&*format!("CREATE TABLE {table} (id BIGINT NOT NULL, note VARCHAR(10))")).await.unwrap();
        other.execute(&*format!("LOCK TABLES {table} WRITE")).await.unwrap();
        let sink = MySqlSink::connect(&dsn(Kind::MySql)).await.unwrap();
        let changing = async || {
            let waits = format!(
                "SELECT 1 FROM information_schema.processlist WHERE state LIKE 'Waiting for table%' AND info LIKE '%{table}%' \
                 AND id <> connection_id()"
            );
            let until = async {
                while look.fetch_optional(&*waits).await.unwrap().is_none() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(LONG, until).await.expect("rows wait for the table");
            other.execute(&*format!("ALTER TABLE {table} {change}")).await.unwrap();
            other.execute("UNLOCK TABLES").await.unwrap();
        };
        let mut repairing = MySqlConnection::connect(&dsn(Kind::MySql)).await.unwrap();
        let repaired = async || {
            repairing.execute(&*format!("ALTER TABLE {table} {repair}")).await.unwrap();
        };
        feed(sink, &table, advice, false, changing, repaired).await;
        let whole = format!("SELECT 1 FROM {table} HAVING count(DISTINCT id) = {LINES} AND count(*) = {LINES}");
        assert!(look.fetch_optional(&*whole).await.unwrap().is_some(), "{change}");
        look.execute(&*format!("DROP TABLE {table}")).await.unwrap();
    }
}
