//! Owns what the tests share: a fresh database per test, and helpers to write and read it.

use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, DynRow, Ordering, Outcome, PipelineConfig, Schema, Value};
use batchsql_sqlite::SqliteSink;
use batchsql_testkit::{outcomes_of, receipts_of};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A database in memory after running `sql`.
pub(crate) async fn memory(sql: &'static str) -> SqliteSink {
    let sink = SqliteSink::open("sqlite::memory:").unwrap();
    sink.call(|conn| conn.execute_batch(sql)).await.unwrap();
    sink
}

/// A pipeline whose batches are written in order, so that outcomes are deterministic.
pub(crate) fn pipeline(sink: &SqliteSink) -> BatchSql {
    let config = PipelineConfig::default().flush_interval(HOUR).ordering(Ordering::PerTable);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// A pipeline that sends one row of each key of a batch, if the rule allows it, and one batch at a time.
pub(crate) fn coalescing(sink: &SqliteSink) -> BatchSql {
    let config = PipelineConfig::default().flush_interval(HOUR).max_concurrency(1);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// `id` and `note` of table `t`.
pub(crate) fn schema(conflict: Conflict) -> Schema {
    Schema::builder("t")
        .column("id", ColumnType::I64)
        .nullable("note", ColumnType::Text)
        .on_conflict(conflict)
        .build()
        .unwrap()
}

pub(crate) fn row(schema: &Schema, id: i64, note: impl Into<Value>) -> DynRow {
    schema.row().set("id", id).unwrap().set("note", note).unwrap().finish().unwrap()
}

/// Writes the rows in one batch; their outcomes by name.
pub(crate) async fn write(sink: &SqliteSink, rows: impl IntoIterator<Item = DynRow>) -> Vec<&'static str> {
    outcomes(sink, rows).await.iter().map(|outcome| outcome.kind().name()).collect()
}

/// Writes the rows in one batch.
pub(crate) async fn outcomes(sink: &SqliteSink, rows: impl IntoIterator<Item = DynRow>) -> Vec<Outcome> {
    let db = pipeline(sink);
    let receipts = receipts_of(&db, rows).await;
    db.close(HOUR).await;
    outcomes_of(receipts).await
}

/// Every row of a query, its columns joined by `|`.
pub(crate) async fn read(sink: &SqliteSink, sql: &'static str) -> Vec<String> {
    sink.call(move |conn| {
        let mut statement = conn.prepare(sql)?;
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let text = |index| {
                Ok(match row.get_ref(index)? {
                    rusqlite_value::Null => "NULL".to_owned(),
                    rusqlite_value::Integer(v) => v.to_string(),
                    rusqlite_value::Real(v) => format!("{v:?}"),
                    rusqlite_value::Text(v) => String::from_utf8_lossy(v).into_owned(),
                    rusqlite_value::Blob(v) => format!("{v:02x?}"),
                })
            };
            (0..columns).map(text).collect::<Result<Vec<_>, _>>().map(|values| values.join("|"))
        })?;
        rows.collect()
    })
    .await
    .unwrap()
}

use batchsql_sqlite::rusqlite::types::ValueRef as rusqlite_value;
