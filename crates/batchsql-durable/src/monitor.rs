//! Owns what is reported to the observers of the pipeline about the intake: its state and its counts, each second and at its end.
//! Must not know metrics, or what the tasks of the intake do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use batchsql_core::{DurableGauges, DurableProgress, DurableReporter, DurableTable};
use batchsql_feed::unquoted_table;
use batchsql_log::{Log, LogStats};

use crate::feed::partitions::Partitions;
use crate::health::Recovered;

/// How often the state is reported, as often as that of the pipeline.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells the observers of a pipeline about its intake.
#[derive(Debug)]
pub(crate) struct Monitor {
    reporter: DurableReporter,
    log: Log,
    partitions: Arc<Partitions>,
    acknowledged: Arc<AtomicU64>,
    recovered_rows: u64,
    recovery: Duration,
    /// The counts that were told.
    told: Mutex<DurableProgress>,
}

impl Monitor {
    pub(crate) fn new(
        reporter: DurableReporter,
        log: Log,
        partitions: Arc<Partitions>,
        acknowledged: Arc<AtomicU64>,
        recovered: &Recovered,
        recovery: Duration,
    ) -> Self {
        let recovered_rows = recovered.rows;
        Self { reporter, log, partitions, acknowledged, recovered_rows, recovery, told: Mutex::default() }
    }

    /// Reports until it is aborted. Without observers it ends at once.
    pub(crate) async fn run(self: Arc<Self>) {
        while self.reporter.is_observed() {
            self.report();
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Reports the state at this moment, and what was done since the last report.
    pub(crate) fn report(&self) {
        if !self.reporter.is_observed() {
            return;
        }
        let stats = self.log.stats();
        self.reporter.gauges(&self.gauges(&stats));
        let done = self.done(&stats);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = since(&done, &told);
        *told = done;
        drop(told);
        self.reporter.progress(&progress);
    }

    fn gauges(&self, stats: &LogStats) -> DurableGauges {
        let mut gauges = DurableGauges::default();
        gauges.log_bytes = stats.bytes;
        gauges.log_bytes_limit = stats.bytes_limit;
        gauges.log_is_full = stats.is_full;
        gauges.oldest_unsettled = self.partitions.oldest_unsettled();
        gauges.recovered_rows = self.recovered_rows;
        gauges.recovery = self.recovery;
        let mut tables: BTreeMap<String, DurableTable> = BTreeMap::new();
        for stream in self.partitions.all() {
            let table = tables.entry(unquoted_table(stream.state.table())).or_default();
            let (unsettled, read) = stream.lag();
            table.unsettled_rows += unsettled;
            table.read_rows += read;
            table.stopped_partitions += u64::from(stream.state.stopped().is_some());
            table.waiting_partitions += u64::from(stream.state.waiting().is_some());
        }
        let named = tables.into_iter().map(|(name, mut table)| {
            table.table = name;
            table
        });
        gauges.tables = named.collect();
        gauges
    }

    /// All counts since the start.
    fn done(&self, stats: &LogStats) -> DurableProgress {
        let counts = self.partitions.feeds.counts();
        let mut done = DurableProgress::default();
        done.rows = self.acknowledged.load(Ordering::Relaxed);
        done.blocks = stats.appended_blocks;
        done.bytes = stats.appended_bytes;
        done.disk_failures = stats.failures;
        done.quarantined_parts = stats.quarantined;
        done.quarantined_bytes = stats.quarantined_bytes;
        done.missing_rows = counts.missing;
        done.written_again = counts.written_again;
        done.dead_letters = counts.dead_letters;
        done
    }
}

/// Counts only grow.
fn since(now: &DurableProgress, before: &DurableProgress) -> DurableProgress {
    let mut progress = DurableProgress::default();
    progress.rows = now.rows - before.rows;
    progress.blocks = now.blocks - before.blocks;
    progress.bytes = now.bytes - before.bytes;
    progress.disk_failures = now.disk_failures - before.disk_failures;
    progress.quarantined_parts = now.quarantined_parts - before.quarantined_parts;
    progress.quarantined_bytes = now.quarantined_bytes - before.quarantined_bytes;
    progress.missing_rows = now.missing_rows - before.missing_rows;
    progress.written_again = now.written_again - before.written_again;
    progress.dead_letters = now.dead_letters - before.dead_letters;
    progress
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, Schema, TableName};

    use super::*;
    use batchsql_feed::quoted_table;

    #[test]
    fn tables_have_the_names_that_the_pipeline_reports() {
        for table in [
            TableName::new("events"),
            TableName::qualified("audit", "events"),
            TableName::new("a.b"),
            TableName::qualified("a\"b", "\"c\".\"d\""),
        ] {
            let schema = Schema::builder(table.clone()).column("id", ColumnType::I64).build().unwrap();
            assert_eq!(unquoted_table(&quoted_table(&table)), schema.table_display(), "{table:?}");
        }
    }
}
