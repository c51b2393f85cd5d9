//! Owns what the tests share: one small table, pipelines over a scripted sink, a recording reporter.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{
    BatchExecuted, BatchInfo, BatchSealed, BatchSql, ColumnType, Conflict, DynRow, FlushReason, MetricsReporter,
    OutcomeCounts, PipelineConfig, PipelineGauges, Receipt, Schema, ValueRef,
};
use batchsql_testkit::ScriptedSink;

/// Keys this far from each other may be in different lanes; adjacent keys never are.
pub(crate) const FAR: i64 = 1_000;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A table with a key and a note.
pub(crate) fn table(name: &str, conflict: Conflict) -> Schema {
    Schema::builder(name)
        .column("id", ColumnType::I64)
        .nullable("note", ColumnType::Text)
        .on_conflict(conflict)
        .build()
        .unwrap()
}

pub(crate) fn plain() -> Schema {
    table("t", Conflict::none())
}

pub(crate) fn row(schema: &Schema, id: i64) -> DynRow {
    schema.row().set("id", id).unwrap().set("note", "n").unwrap().finish().unwrap()
}

pub(crate) fn id(row: &DynRow) -> i64 {
    match row.get("id") {
        Some(ValueRef::I64(id)) => id,
        other => panic!("no id in {row:?}: {other:?}"),
    }
}

pub(crate) fn ids(rows: &[DynRow]) -> Vec<i64> {
    rows.iter().map(id).collect()
}

/// Batches of 10 rows, no flush by age, no retry limit worth mentioning.
pub(crate) fn config() -> PipelineConfig {
    PipelineConfig::default().buffer_size(100).flush_size(10).flush_interval(HOUR)
}

pub(crate) fn pipeline(config: PipelineConfig) -> (BatchSql, ScriptedSink) {
    let sink = ScriptedSink::new();
    (BatchSql::builder(sink.clone()).config(config).start().unwrap(), sink)
}

/// Submits rows with these ids.
pub(crate) async fn receipts(db: &BatchSql, schema: &Schema, rows: std::ops::Range<i64>) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for id in rows {
        receipts.push(db.submit_tracked(&row(schema, id)).await.unwrap());
    }
    receipts
}

/// Lets every task run until all of them wait.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Records the events that it gets.
#[derive(Clone, Default)]
pub(crate) struct Recorder(pub(crate) Arc<Mutex<Recorded>>);

#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) sealed: Vec<(usize, FlushReason)>,
    pub(crate) received: usize,
    pub(crate) executed: Vec<(usize, bool)>,
    pub(crate) resolved: u64,
    pub(crate) refused: Vec<&'static str>,
    pub(crate) waits: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) gauges: Option<PipelineGauges>,
    pub(crate) contexts: Vec<Option<String>>,
    pub(crate) context: Option<Arc<str>>,
    pub(crate) has_letters: bool,
}

impl MetricsReporter for Recorder {
    fn context(&self) -> Option<Arc<str>> {
        self.0.lock().unwrap().context.clone()
    }

    fn batch_sealed(&self, batch: &BatchInfo<'_>, event: &BatchSealed) {
        let mut recorded = self.0.lock().unwrap();
        recorded.sealed.push((batch.rows, event.reason));
        recorded.received += batch.rows;
    }

    fn batch_executed(&self, batch: &BatchInfo<'_>, event: &BatchExecuted) {
        let mut recorded = self.0.lock().unwrap();
        recorded.executed.push((event.rows, event.error.is_none()));
        recorded.contexts.push(batch.context.map(ToString::to_string));
    }

    fn rows_resolved(&self, _: &BatchInfo<'_>, counts: &OutcomeCounts) {
        self.0.lock().unwrap().resolved += counts.total();
    }

    fn row_refused(&self, _: &str, reason: &'static str) {
        self.0.lock().unwrap().refused.push(reason);
    }

    fn submit_waited(&self, _: &str, _: Duration) {
        self.0.lock().unwrap().waits += 1;
    }

    fn gauges(&self, gauges: &PipelineGauges) {
        let mut recorded = self.0.lock().unwrap();
        // Failed rows that wait for a consumer may hold more bytes than the limit.
        let bytes_fit = gauges.buffer_bytes <= gauges.buffer_bytes_limit || recorded.has_letters;
        assert!(gauges.buffer_rows <= gauges.buffer_rows_limit && bytes_fit);
        recorded.max_in_flight = recorded.max_in_flight.max(gauges.inflight_batches);
        recorded.gauges = Some(*gauges);
    }
}
