//! Tables that are recreated while rows are written: a column that would change values is detected before the
//! next row.

use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, DynRow, ErrorClass, PipelineConfig, Schema, Value};
use batchsql_sqlite::rusqlite::Connection;
use batchsql_sqlite::{SqliteOptions, SqliteSink};

use crate::support::{HOUR, memory, read};

fn prices(table: impl Into<batchsql_core::TableName>) -> Schema {
    Schema::builder(table).column("id", ColumnType::I64).column("price", ColumnType::Decimal).build().unwrap()
}

fn row(schema: &Schema, id: i64) -> DynRow {
    schema.row().set_all([Value::I64(id), Value::Decimal("0.10".parse().unwrap())]).unwrap().finish().unwrap()
}

fn pipeline(sink: &SqliteSink) -> BatchSql {
    let config = PipelineConfig::default().park_for(Duration::ZERO).flush_interval(HOUR);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// Writes a row before and after a change; returns the error of the second one.
async fn after(
    sink: &SqliteSink,
    table: impl Into<batchsql_core::TableName>,
    change: impl Future<Output = ()>,
) -> String {
    let db = pipeline(sink);
    let schema = prices(table);
    db.submit(&row(&schema, 1)).await.unwrap();
    assert_eq!(db.flush().await.unwrap().written(), 1);
    change.await;
    let receipt = db.submit_tracked(&row(&schema, 2)).await.unwrap();
    db.flush().await.unwrap();
    let outcome = receipt.await;
    let failed = outcome.failure().expect("the change is seen");
    assert_eq!(failed.class(), Some(ErrorClass::Schema));
    failed.error().unwrap().to_string()
}

#[tokio::test]
async fn a_table_made_anew_that_would_round_decimals_takes_none() {
    let anew = "DROP TABLE t; CREATE TABLE t (id INTEGER, price NUMERIC)";
    // Changed by the connection of the sink.
    let sink = memory("CREATE TABLE t (id INTEGER, price TEXT)").await;
    let changed = async { sink.call(move |conn| conn.execute_batch(anew)).await.unwrap() };
    let error = after(&sink, "t", changed).await;
    assert!(error.contains("declared \"NUMERIC\""), "{error}");
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["0"]);
    // Changed by another connection.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path)).unwrap();
    sink.call(|conn| conn.execute_batch("CREATE TABLE t (id INTEGER, price TEXT)")).await.unwrap();
    let error = after(&sink, "t", async { Connection::open(&path).unwrap().execute_batch(anew).unwrap() }).await;
    assert!(error.contains("declared \"NUMERIC\""), "{error}");
    // In a database that is attached.
    let sink = memory("ATTACH ':memory:' AS aux; CREATE TABLE aux.t (id INTEGER, price TEXT)").await;
    let anew = "DROP TABLE aux.t; CREATE TABLE aux.t (id INTEGER, price NUMERIC)";
    let changed = async { sink.call(move |conn| conn.execute_batch(anew)).await.unwrap() };
    let error = after(&sink, batchsql_core::TableName::qualified("aux", "t"), changed).await;
    assert!(error.contains("declared \"NUMERIC\""), "{error}");
    // In the file, where a table is searched before those that are attached.
    let sink = memory("ATTACH ':memory:' AS aux; CREATE TABLE aux.t (id INTEGER, price TEXT)").await;
    let anew = "CREATE TABLE t (id INTEGER, price NUMERIC)";
    let error = after(&sink, "t", async { sink.call(move |conn| conn.execute_batch(anew)).await.unwrap() }).await;
    assert!(error.contains("declared \"NUMERIC\""), "{error}");
}

#[tokio::test]
async fn a_change_that_does_no_harm_costs_no_row() {
    let sink = memory("CREATE TABLE t (id INTEGER, price TEXT)").await;
    let db = pipeline(&sink);
    let schema = prices("t");
    let changes = [
        "CREATE INDEX i ON t (id)",
        "CREATE TABLE other (id INTEGER)",
        "ALTER TABLE t ADD COLUMN more TEXT",
        "DROP TABLE t; CREATE TABLE t (price TEXT, id INTEGER)",
    ];
    for (id, change) in (0..).zip(changes) {
        db.submit(&row(&schema, id)).await.unwrap();
        assert_eq!(db.flush().await.unwrap().failed(), 0, "before {change}");
        sink.call(move |conn| conn.execute_batch(change)).await.unwrap();
    }
    db.submit(&row(&schema, 9)).await.unwrap();
    assert_eq!(db.close(HOUR).await.balance.failed(), 0);
    assert_eq!(read(&sink, "SELECT id, price, typeof(price) FROM t").await, ["9|0.10|text"]);
}
