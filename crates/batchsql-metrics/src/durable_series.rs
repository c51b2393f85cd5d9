//! Owns the handles of the durable intake of one pipeline: made with its first event, bounded in number.
//! Must not know which events there are; `reporter` passes their values.

use batchsql_core::{DurableGauges, DurableProgress, DurableTable};
use metrics::{Counter, Gauge, Histogram, SharedString};

use crate::catalogue::Metric;
use crate::emit::Emitter;
use crate::scope::{Scope, TableScopes};
use crate::unix_time::unix_seconds;

/// The handles of a durable intake.
pub(crate) struct DurableSeries {
    log_bytes: Gauge,
    log_bytes_limit: Gauge,
    log_full: Gauge,
    oldest_unsettled: Gauge,
    recovered: Gauge,
    recovery: Gauge,
    pub(crate) sync: Histogram,
    records: Counter,
    blocks: Counter,
    bytes: Counter,
    disk_failures: Counter,
    quarantined_parts: Counter,
    quarantined_bytes: Counter,
    missing: Counter,
    written_again: Counter,
    dead_letters: Counter,
    tables: TableScopes<TableSeries>,
}

/// The handles of one table.
struct TableSeries {
    unsettled: Gauge,
    read: Gauge,
    stopped: Gauge,
    waiting: Gauge,
}

impl DurableSeries {
    pub(crate) fn new(emitter: &Emitter, database: &SharedString, max_tables: usize) -> Self {
        let pipeline = Scope::of_pipeline(emitter, database);
        let (gauge, counter) = (|metric| pipeline.gauge(metric), |metric| pipeline.counter(metric));
        Self {
            log_bytes: gauge(Metric::DurableLogBytes),
            log_bytes_limit: gauge(Metric::DurableLogBytesLimit),
            log_full: gauge(Metric::DurableLogFull),
            oldest_unsettled: gauge(Metric::DurableOldestUnsettledRecord),
            recovered: gauge(Metric::DurableRecoveredRecords),
            recovery: gauge(Metric::DurableRecovery),
            sync: pipeline.histogram(Metric::DurableSync),
            records: counter(Metric::DurableAcknowledgedRecords),
            blocks: counter(Metric::DurableAcknowledgedBlocks),
            bytes: counter(Metric::DurableAcknowledgedBytes),
            disk_failures: counter(Metric::DurableDiskFailures),
            quarantined_parts: counter(Metric::DurableQuarantinedParts),
            quarantined_bytes: counter(Metric::DurableQuarantinedBytes),
            missing: counter(Metric::DurableMissingRecords),
            written_again: counter(Metric::DurableWrittenAgain),
            dead_letters: counter(Metric::DurableDeadLetters),
            tables: TableScopes::new(&pipeline, max_tables, TableSeries::new),
        }
    }

    /// Sets every gauge.
    pub(crate) fn set(&self, gauges: &DurableGauges) {
        self.log_bytes.set(gauges.log_bytes as f64);
        self.log_bytes_limit.set(gauges.log_bytes_limit as f64);
        self.log_full.set(f64::from(u8::from(gauges.log_is_full)));
        self.oldest_unsettled.set(gauges.oldest_unsettled.map_or(0.0, unix_seconds));
        self.recovered.set(gauges.recovered_rows as f64);
        self.recovery.set(gauges.recovery);
        self.tables.set_all(&gauges.tables, |table| &table.table, add, TableSeries::set);
    }

    /// Adds to every counter.
    pub(crate) fn add(&self, progress: &DurableProgress) {
        self.records.increment(progress.rows);
        self.blocks.increment(progress.blocks);
        self.bytes.increment(progress.bytes);
        self.disk_failures.increment(progress.disk_failures);
        self.quarantined_parts.increment(progress.quarantined_parts);
        self.quarantined_bytes.increment(progress.quarantined_bytes);
        self.missing.increment(progress.missing_rows);
        self.written_again.increment(progress.written_again);
        self.dead_letters.increment(progress.dead_letters);
    }
}

impl TableSeries {
    fn new(table: &Scope<2>) -> Self {
        Self {
            unsettled: table.gauge(Metric::DurableUnsettledRecords),
            read: table.gauge(Metric::DurableReadRecords),
            stopped: table.gauge(Metric::DurableStoppedPartitions),
            waiting: table.gauge(Metric::DurableWaitingPartitions),
        }
    }

    fn set(&self, table: &DurableTable) {
        self.unsettled.set(table.unsettled_rows as f64);
        self.read.set(table.read_rows as f64);
        self.stopped.set(table.stopped_partitions as f64);
        self.waiting.set(table.waiting_partitions as f64);
    }
}

fn add(sum: &mut DurableTable, table: &DurableTable) {
    sum.unsettled_rows += table.unsettled_rows;
    sum.read_rows += table.read_rows;
    sum.stopped_partitions += table.stopped_partitions;
    sum.waiting_partitions += table.waiting_partitions;
}
