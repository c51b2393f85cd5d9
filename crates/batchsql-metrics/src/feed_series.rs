//! Owns the handles of the feeds of one pipeline: made with their first event, bounded in number.
//! Must not know which events there are; `reporter` passes their values.

use std::sync::OnceLock;
use std::time::SystemTime;

use batchsql_core::{FeedGauges, FeedProgress, FeedTable, StopReason};
use metrics::{Counter, Gauge, SharedString};

use crate::catalogue::Metric;
use crate::emit::Emitter;
use crate::scope::{Scope, TableScopes};
use crate::unix_time::unix_seconds;

/// The handles of the feeds of a pipeline.
pub(crate) struct FeedSeries {
    /// Absent until the source has answered or not.
    source_up: OnceLock<Gauge>,
    /// Absent if the source has no such messages.
    stray: OnceLock<Gauge>,
    tables: TableScopes<TableSeries>,
    pipeline: Scope<1>,
}

/// The handles of one table.
struct TableSeries {
    unsettled: Gauge,
    pending: Gauge,
    oldest: Gauge,
    wanted: Gauge,
    held: Gauge,
    unheld: Gauge,
    waiting: Gauge,
    stopped: Vec<(StopReason, Gauge)>,
    read: Counter,
    written: Counter,
    written_again: Counter,
    missing: Counter,
    dead_letters: Counter,
    takeovers: Counter,
    fences: Counter,
    redelivered: Counter,
    foreign: Counter,
}

impl FeedSeries {
    pub(crate) fn new(emitter: &Emitter, database: &SharedString, max_tables: usize) -> Self {
        let pipeline = Scope::of_pipeline(emitter, database);
        let tables = TableScopes::new(&pipeline, max_tables, TableSeries::new);
        Self { source_up: OnceLock::new(), stray: OnceLock::new(), tables, pipeline }
    }

    /// Sets every gauge.
    pub(crate) fn set(&self, gauges: &FeedGauges) {
        if let Some(is_up) = gauges.source_up {
            self.source_up.get_or_init(|| self.pipeline.gauge(Metric::FeedSourceUp)).set(f64::from(u8::from(is_up)));
        }
        if let Some(messages) = gauges.stray_messages {
            self.stray.get_or_init(|| self.pipeline.gauge(Metric::FeedStrayMessages)).set(messages as f64);
        }
        self.tables.set_all(&gauges.tables, |table| &table.table, add, TableSeries::set);
    }

    /// Adds to every counter of a table.
    pub(crate) fn add(&self, progress: &FeedProgress) {
        let series = self.tables.table(&progress.table);
        series.read.increment(progress.read_rows);
        series.written.increment(progress.written_rows);
        series.written_again.increment(progress.written_again);
        series.missing.increment(progress.missing_rows);
        series.dead_letters.increment(progress.dead_letters);
        series.takeovers.increment(progress.takeovers);
        series.fences.increment(progress.fences);
        series.redelivered.increment(progress.redelivered_messages);
        series.foreign.increment(progress.foreign_messages);
    }
}

impl TableSeries {
    fn new(table: &Scope<2>) -> Self {
        let (gauge, counter) = (|metric| table.gauge(metric), |metric| table.counter(metric));
        let stopped = |reason: StopReason| (reason, table.because(reason.name()).gauge(Metric::FeedStoppedPartitions));
        Self {
            unsettled: gauge(Metric::FeedUnsettledMessages),
            pending: gauge(Metric::FeedPendingMessages),
            oldest: gauge(Metric::FeedOldestUnsettledMessage),
            wanted: gauge(Metric::FeedWantedPartitions),
            held: gauge(Metric::FeedHeldPartitions),
            unheld: gauge(Metric::FeedUnheldPartitions),
            waiting: gauge(Metric::FeedWaitingPartitions),
            stopped: StopReason::ALL.map(stopped).into(),
            read: counter(Metric::FeedReadRecords),
            written: counter(Metric::FeedWrittenRecords),
            written_again: counter(Metric::FeedWrittenAgain),
            missing: counter(Metric::FeedMissingRecords),
            dead_letters: counter(Metric::FeedDeadLetters),
            takeovers: counter(Metric::FeedTakeovers),
            fences: counter(Metric::FeedFences),
            redelivered: counter(Metric::FeedRedeliveredMessages),
            foreign: counter(Metric::FeedForeignMessages),
        }
    }

    fn set(&self, table: &FeedTable) {
        self.unsettled.set(table.unsettled_messages as f64);
        self.pending.set(table.pending_messages as f64);
        self.oldest.set(table.oldest_unsettled.map_or(0.0, unix_seconds));
        self.wanted.set(table.wanted_partitions as f64);
        self.held.set(table.held_partitions as f64);
        self.unheld.set(table.unheld_partitions as f64);
        self.waiting.set(table.waiting_partitions as f64);
        for (reason, gauge) in &self.stopped {
            gauge.set(table.stopped_partitions.get(reason).copied().unwrap_or_default() as f64);
        }
    }
}

fn add(sum: &mut FeedTable, table: &FeedTable) {
    sum.unsettled_messages += table.unsettled_messages;
    sum.pending_messages += table.pending_messages;
    sum.oldest_unsettled = earliest(sum.oldest_unsettled, table.oldest_unsettled);
    sum.wanted_partitions += table.wanted_partitions;
    sum.held_partitions += table.held_partitions;
    sum.unheld_partitions += table.unheld_partitions;
    sum.waiting_partitions += table.waiting_partitions;
    for (reason, partitions) in &table.stopped_partitions {
        *sum.stopped_partitions.entry(*reason).or_default() += partitions;
    }
}

fn earliest(one: Option<SystemTime>, other: Option<SystemTime>) -> Option<SystemTime> {
    one.into_iter().chain(other).min()
}
