//! A real database: rows of every type, an outage, a clean end and an unclean one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, PipelineConfig};
use batchsql_durable::{DurableBatchSql, DurableExt, DurableOptions};
use batchsql_sqlite::rusqlite::{Connection, types::Value as SqlValue};
use batchsql_sqlite::{SqliteOptions, SqliteSink, Synchronous};

use crate::support::{LONG, config, options, row, table};

/// A new folder with a database file.
pub(crate) fn database() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    let sql = "PRAGMA journal_mode=WAL;
        CREATE TABLE keyed (id INTEGER PRIMARY KEY, version INTEGER NOT NULL);
        CREATE TABLE plain (id INTEGER NOT NULL, version INTEGER NOT NULL);
        CREATE TABLE history (number INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT NULL, version INTEGER NOT NULL);
        CREATE TRIGGER inserted AFTER INSERT ON keyed BEGIN
            INSERT INTO history (id, version) VALUES (new.id, new.version); END;
        CREATE TRIGGER updated AFTER UPDATE ON keyed BEGIN
            INSERT INTO history (id, version) VALUES (new.id, new.version); END;";
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    (dir, path)
}

pub(crate) async fn open(path: &Path, config: PipelineConfig, options: DurableOptions) -> DurableBatchSql {
    let sink = SqliteSink::with_options(&SqliteOptions::file(path).synchronous(Synchronous::Full)).unwrap();
    BatchSql::builder(sink).config(config).durable(options).start().await.unwrap()
}

/// The rows of a query with two numbers.
pub(crate) fn pairs(path: &Path, sql: &str) -> Vec<(i64, i64)> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_table_after_a_flush() {
    let (dir, path) = database();
    let db = open(&path, config(), options(&dir.path().join("intake"))).await;
    let keyed = table("keyed", Conflict::update(["id"]).only_if_newer("version"));
    for n in 0..300 {
        db.submit(&row(&keyed, n % 10, n)).await.unwrap();
    }
    db.flush().await.unwrap();
    let expected: Vec<_> = (0..10).map(|id| (id, 290 + id)).collect();
    assert_eq!(pairs(&path, "SELECT id, version FROM keyed ORDER BY id"), expected);
    assert!(db.close(LONG).await.is_drained());
}

/// Every type survives the log.
#[tokio::test(flavor = "multi_thread")]
async fn values_are_stored_as_they_were_submitted() {
    use batchsql_core::{ColumnType, Schema, Value};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("types.db");
    let mut builder = Schema::builder("t");
    let mut columns = Vec::new();
    for ty in ColumnType::ALL {
        builder = builder.nullable(format!("c_{ty}"), ty);
        columns.push(format!("c_{ty}"));
    }
    let schema = builder.build().unwrap();
    let create = |table: &str| format!("CREATE TABLE {table} ({})", columns.join(", "));
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(&format!("PRAGMA journal_mode=WAL; {}; {}", create("t"), create("direct"))).unwrap();
    let values = [
        Value::Bool(true),
        Value::I16(-7),
        Value::I32(7),
        Value::I64(i64::MIN),
        Value::U64(9),
        Value::F32(0.5),
        Value::F64(-1e300),
        Value::Decimal("-1.50".parse().unwrap()),
        Value::Text("é\u{1F980}".into()),
        Value::Bytes(vec![0, 255]),
        Value::Uuid([7; 16]),
        Value::Json("{\"a\": [1.10]}".parse().unwrap()),
        Value::Date("2026-11-29".parse().unwrap()),
        Value::Time("23:59:59.999999".parse().unwrap()),
        Value::Timestamp("2026-11-29 01:02:03".parse().unwrap()),
        Value::TimestampTz("2026-11-29T01:02:03Z".parse().unwrap()),
    ];
    let rows = [
        schema.row().set_all(values.clone()).unwrap().finish().unwrap(),
        schema.row().set_all(vec![Value::Null; 16]).unwrap().finish().unwrap(),
        // A row that leaves columns out has a schema of its own.
        schema.row().set("c_text", "alone").unwrap().finish().unwrap(),
    ];
    let db = open(&path, config(), options(&dir.path().join("intake"))).await;
    db.submit_all(&rows).await.unwrap();
    db.flush().await.unwrap();
    assert!(db.close(LONG).await.is_drained());
    // The same without a log.
    let mut builder = Schema::builder("direct");
    for ty in ColumnType::ALL {
        builder = builder.nullable(format!("c_{ty}"), ty);
    }
    let direct = builder.build().unwrap();
    let plain = BatchSql::builder(SqliteSink::with_options(&SqliteOptions::file(&path)).unwrap()).start().unwrap();
    plain.submit(&direct.row().set_all(values).unwrap().finish().unwrap()).await.unwrap();
    plain.close(LONG).await;
    let all = |table: &str| -> Vec<Vec<SqlValue>> {
        let mut statement = conn.prepare(&format!("SELECT * FROM {table} ORDER BY c_i64, c_text")).unwrap();
        let rows = statement.query_map([], |row| (0..16).map(|n| row.get(n)).collect::<Result<Vec<_>, _>>()).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let stored = all("t");
    assert_eq!(stored.len(), 3);
    assert!(stored.contains(&all("direct")[0]), "{stored:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_no_row() {
    let (dir, path) = database();
    let db = open(&path, config(), options(&dir.path().join("intake"))).await;
    let keyed = table("keyed", Conflict::update(["id"]));
    // Another writer holds the database for longer than the pipeline alone would retry.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let rows: Vec<_> = (0..2000).map(|n| row(&keyed, n % 100, n)).collect();
    db.submit_all(&rows).await.unwrap();
    let flushed = tokio::time::timeout(Duration::from_millis(50), db.flush()).await;
    assert!(flushed.is_err(), "nothing can be written");
    other.execute_batch("COMMIT").unwrap();
    db.flush().await.unwrap();
    let expected: Vec<_> = (0..100).map(|id| (id, 1900 + id)).collect();
    assert_eq!(pairs(&path, "SELECT id, version FROM keyed ORDER BY id"), expected);
}

/// At least once too: a row leaves the log when the database has confirmed it.
#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_may_lose_written_rows_is_shown() {
    for (mode, is_lossy) in [("WAL", false), ("MEMORY", true)] {
        let (dir, path) = database();
        let sink = SqliteSink::with_options(&SqliteOptions::file(&path).synchronous(Synchronous::Normal)).unwrap();
        let set = format!("PRAGMA journal_mode={mode}");
        sink.call(move |conn| conn.query_row(&set, [], |_| Ok(()))).await.unwrap();
        let builder = BatchSql::builder(sink.clone()).config(config());
        let db = builder.durable(options(&dir.path().join("intake"))).start().await.unwrap();
        let begun = std::time::Instant::now();
        loop {
            let level =
                sink.call(|conn| conn.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0))).await.unwrap();
            let setting = db.health().lossy_setting;
            if is_lossy && setting.as_ref().is_some_and(|setting| setting.starts_with("journal_mode is memory")) {
                break;
            }
            if !is_lossy && level == 2 {
                assert_eq!(setting, None);
                break;
            }
            assert!(begun.elapsed() < LONG, "{mode}: {level} {setting:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        db.submit(&row(&table("plain", Conflict::none()), 1, 1)).await.unwrap();
        db.flush().await.unwrap();
        assert!(db.health().is_ready(), "it is no reason to write no rows");
        assert!(db.close(LONG).await.is_drained());
    }
}
