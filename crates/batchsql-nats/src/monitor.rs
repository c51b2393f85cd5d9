//! Owns what is reported to the observers of the pipeline about the partitions of a worker: their state and their counts, each second
//! and at the end.
//! Must not know metrics, or what the worker does.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use batchsql_core::{FeedGauges, FeedProgress, FeedReporter, FeedTable, StopReason};
use batchsql_feed::{FeedCounts, StoppedPartition};

use crate::partitions::{PartitionStats, TableStats};
use crate::stats::WorkerStats;

/// How often the state is reported, as often as that of the pipeline.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// Tells the observers of a pipeline about the worker that writes with it.
#[derive(Debug)]
pub(crate) struct Monitor {
    reporter: FeedReporter,
    /// The counts that were told, by table.
    told: Mutex<BTreeMap<String, FeedProgress>>,
}

impl Monitor {
    pub(crate) fn new(reporter: FeedReporter) -> Self {
        Self { reporter, told: Mutex::default() }
    }

    pub(crate) fn is_observed(&self) -> bool {
        self.reporter.is_observed()
    }

    /// Reports the state at this moment, and what was done since the last report. `counts` are those of the feeds, by table.
    pub(crate) fn report(
        &self,
        source_up: Option<bool>,
        stats: &WorkerStats,
        tables: &[TableStats],
        counts: &[(String, FeedCounts)],
    ) {
        let mut gauges = FeedGauges::default();
        gauges.source_up = source_up;
        gauges.stray_messages = Some(stats.stray.messages);
        gauges.tables = tables.iter().map(|table| state(table, stats)).collect();
        self.reporter.gauges(&gauges);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for table in tables {
            let done = done(table, counts);
            let before = told.entry(table.table.clone()).or_default();
            let progress = since(&done, before);
            *before = done;
            self.reporter.progress(&progress);
        }
    }
}

/// The state of one table.
fn state(table: &TableStats, stats: &WorkerStats) -> FeedTable {
    let mut state = FeedTable::default();
    state.table = table.shown.clone();
    state.unheld_partitions = table.unheld;
    for partition in stats.partitions.iter().filter(|partition| partition.table == table.table) {
        let PartitionStats { unsettled, pending, oldest, is_held, .. } = *partition;
        state.wanted_partitions += 1;
        state.held_partitions += u64::from(is_held);
        state.unsettled_messages += unsettled;
        state.pending_messages += pending;
        state.oldest_unsettled = state.oldest_unsettled.into_iter().chain(oldest).min();
    }
    let is_ours = |partition: &&StoppedPartition| partition.table == table.table;
    state.waiting_partitions = stats.waiting.iter().filter(is_ours).count() as u64;
    for stopped in stats.stopped.iter().filter(is_ours) {
        let kind = stopped.kind.unwrap_or(StopReason::Defect);
        *state.stopped_partitions.entry(kind).or_default() += 1;
    }
    state
}

/// What was done for one table since the start.
fn done(table: &TableStats, counts: &[(String, FeedCounts)]) -> FeedProgress {
    let of_feeds = counts.iter().find(|(of, _)| *of == table.table).map(|(_, counts)| *counts).unwrap_or_default();
    let mut done = FeedProgress::default();
    done.table = table.shown.clone();
    done.read_rows = of_feeds.read;
    done.written_rows = of_feeds.written;
    done.written_again = of_feeds.written_again;
    done.missing_rows = of_feeds.missing;
    done.dead_letters = of_feeds.dead_letters;
    done.takeovers = table.tallies.takeovers.get();
    done.fences = table.tallies.fences.get();
    done.redelivered_messages = table.tallies.redelivered.get();
    done.foreign_messages = table.tallies.foreign.get();
    done
}

/// Counts only grow.
fn since(now: &FeedProgress, before: &FeedProgress) -> FeedProgress {
    let mut progress = now.clone();
    progress.read_rows -= before.read_rows;
    progress.written_rows -= before.written_rows;
    progress.written_again -= before.written_again;
    progress.missing_rows -= before.missing_rows;
    progress.dead_letters -= before.dead_letters;
    progress.takeovers -= before.takeovers;
    progress.fences -= before.fences;
    progress.redelivered_messages -= before.redelivered_messages;
    progress.foreign_messages -= before.foreign_messages;
    progress
}
