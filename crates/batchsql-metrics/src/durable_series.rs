//! Owns the handles of the durable intake of one pipeline: made with its first event, bounded in number.
//! Must not know which events there are; `reporter` passes their values.

use std::collections::HashMap;
use std::sync::Arc;

use batchsql_core::{DurableGauges, DurableProgress, DurableTable};
use metrics::{Counter, Gauge, Histogram, SharedString};

use crate::capped::{Capped, OTHER};
use crate::catalogue::Metric;
use crate::emit::Emitter;
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
    tables: Capped<Box<str>, TableSeries>,
    emitter: Emitter,
    database: SharedString,
}

/// The handles of one table.
struct TableSeries {
    unsettled: Gauge,
    read: Gauge,
    stopped: Gauge,
}

impl DurableSeries {
    pub(crate) fn new(emitter: &Emitter, database: &SharedString, max_tables: usize) -> Self {
        let gauge = |metric| emitter.gauge(metric, [Some(database.clone())]);
        let counter = |metric| emitter.counter(metric, [Some(database.clone())]);
        Self {
            log_bytes: gauge(Metric::DurableLogBytes),
            log_bytes_limit: gauge(Metric::DurableLogBytesLimit),
            log_full: gauge(Metric::DurableLogFull),
            oldest_unsettled: gauge(Metric::DurableOldestUnsettledRecord),
            recovered: gauge(Metric::DurableRecoveredRecords),
            recovery: gauge(Metric::DurableRecovery),
            sync: emitter.histogram(Metric::DurableSync, [Some(database.clone())]),
            records: counter(Metric::DurableAcknowledgedRecords),
            blocks: counter(Metric::DurableAcknowledgedBlocks),
            bytes: counter(Metric::DurableAcknowledgedBytes),
            disk_failures: counter(Metric::DurableDiskFailures),
            quarantined_parts: counter(Metric::DurableQuarantinedParts),
            quarantined_bytes: counter(Metric::DurableQuarantinedBytes),
            missing: counter(Metric::DurableMissingRecords),
            written_again: counter(Metric::DurableWrittenAgain),
            dead_letters: counter(Metric::DurableDeadLetters),
            tables: Capped::new(max_tables),
            emitter: emitter.clone(),
            database: database.clone(),
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
        self.set_tables(&gauges.tables);
    }

    /// Tables beyond the limit share their handles, so their values are added up first.
    fn set_tables(&self, tables: &[DurableTable]) {
        let mut sums: HashMap<*const TableSeries, (Arc<TableSeries>, DurableTable)> = HashMap::new();
        for table in tables {
            let series = self.table(&table.table);
            let (_, sum) = sums.entry(Arc::as_ptr(&series)).or_insert_with(|| (series, DurableTable::default()));
            sum.unsettled_rows += table.unsettled_rows;
            sum.read_rows += table.read_rows;
            sum.stopped_partitions += table.stopped_partitions;
        }
        for (series, sum) in sums.values() {
            series.unsettled.set(sum.unsettled_rows as f64);
            series.read.set(sum.read_rows as f64);
            series.stopped.set(sum.stopped_partitions as f64);
        }
    }

    fn table(&self, table: &str) -> Arc<TableSeries> {
        let new = |is_known: bool| {
            let table = if is_known { table.to_owned().into() } else { SharedString::const_str(OTHER) };
            let gauge = |metric| self.emitter.gauge(metric, [Some(self.database.clone()), Some(table.clone())]);
            TableSeries {
                unsettled: gauge(Metric::DurableUnsettledRecords),
                read: gauge(Metric::DurableReadRecords),
                stopped: gauge(Metric::DurableStoppedPartitions),
            }
        };
        self.tables.get(table, || table.into(), new)
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
