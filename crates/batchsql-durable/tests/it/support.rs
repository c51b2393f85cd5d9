//! Owns what the tests share: a folder, options, numbered rows, and what a sink or a folder has.
//! Must not know a single test.

use std::path::Path;
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, DynRow, PipelineConfig, Schema, Value, ValueRef};
use batchsql_durable::{DurableBatchSql, DurableExt, DurableOptions, DurableStartError};
use batchsql_testkit::ScriptedSink;

/// More than any test takes. Only a failing test waits for it.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn options(folder: &Path) -> DurableOptions {
    DurableOptions::new(folder).min_free_bytes(0)
}

/// Batches that are written at once.
pub(crate) fn config() -> PipelineConfig {
    PipelineConfig::default().flush_size(50).flush_interval(Duration::from_millis(1))
}

pub(crate) async fn start(sink: &ScriptedSink, options: DurableOptions) -> Result<DurableBatchSql, DurableStartError> {
    BatchSql::builder(sink.clone()).config(config()).durable(options).start().await
}

/// Keyed rows: the last version of an id stays.
pub(crate) fn keyed() -> Schema {
    table("keyed", Conflict::update(["id"]))
}

/// Rows without a key.
pub(crate) fn plain() -> Schema {
    table("plain", Conflict::none())
}

pub(crate) fn table(name: &str, rule: Conflict) -> Schema {
    Schema::builder(name)
        .column("id", ColumnType::I64)
        .column("version", ColumnType::I64)
        .on_conflict(rule)
        .build()
        .unwrap()
}

pub(crate) fn row(schema: &Schema, id: i64, version: i64) -> DynRow {
    schema.row().set("id", id).unwrap().set("version", version).unwrap().finish().unwrap()
}

/// Id and version.
pub(crate) fn numbers(row: &DynRow) -> (i64, i64) {
    let number = |column| match row.get(column) {
        Some(ValueRef::I64(number)) => number,
        other => panic!("{column} is {other:?}"),
    };
    (number("id"), number("version"))
}

/// Rows in the order in which they were applied.
pub(crate) fn applied(sink: &ScriptedSink) -> Vec<(i64, i64)> {
    sink.applied().iter().map(numbers).collect()
}

/// Id and version of the rows that a table would have.
pub(crate) fn in_table(sink: &ScriptedSink, table: &str) -> Vec<(i64, i64)> {
    let number = |value: Option<&Value>| match value {
        Some(Value::I64(number)) => *number,
        other => panic!("{other:?} is no number"),
    };
    sink.tables().rows(table).iter().map(|row| (number(row.get("id")), number(row.get("version")))).collect()
}

/// Waits for a condition that other tasks make true.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "it takes too long until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
