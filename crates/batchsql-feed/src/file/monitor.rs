//! Owns the reports about a file to the observers of the pipeline: how far it is written, each second and at the end.
//! Must not know metrics, or how lines are read.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use batchsql_core::{FeedGauges, FeedProgress, FeedReporter, FeedTable, StopReason};
use tokio::sync::watch;

use super::blocking::run;
use super::source::SeenEnd;
use crate::feeds::{FeedCounts, Feeds};
use crate::state::PartitionState;

/// Time between two reports. The pipeline reports as often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reports the state of a file to the observers of the pipeline that it feeds. Lines are its messages.
#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) reporter: FeedReporter,
    pub(super) path: PathBuf,
    /// As a pipeline names it.
    pub(super) table: String,
    pub(super) state: Arc<PartitionState>,
    pub(super) ends: watch::Receiver<SeenEnd>,
    pub(super) bad_lines: Arc<AtomicU64>,
    /// The counts of the last report.
    pub(super) reported: Mutex<FeedProgress>,
}

impl Monitor {
    /// Reports until it is aborted. Without observers it ends at once.
    pub(super) async fn run<S>(self: Arc<Self>, feeds: Arc<Feeds<S>>) {
        while self.reporter.is_observed() {
            self.report(feeds.counts()).await;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Reports the state at this moment, and what was done since the last report.
    pub(super) async fn report(&self, counts: FeedCounts) {
        if !self.reporter.is_observed() {
            return;
        }
        let path = self.path.clone();
        let is_there = run(move || std::fs::metadata(path)).await.is_ok_and(|found| found.is_ok());
        let mut gauges = FeedGauges::default();
        gauges.source_up = Some(is_there);
        gauges.tables = vec![self.table()];
        self.reporter.gauges(&gauges);
        let progress = self.progress(counts);
        self.reporter.progress(&progress);
    }

    fn table(&self) -> FeedTable {
        let (settled, read) = (self.state.settled(), self.state.read().max(self.ends.borrow().line));
        let mut table = FeedTable::default();
        table.table.clone_from(&self.table);
        table.unsettled_messages = read.saturating_sub(settled);
        table.oldest_unsettled = self.state.oldest_block();
        table.wanted_partitions = 1;
        table.held_partitions = u64::from(self.state.is_held());
        table.waiting_partitions = u64::from(self.state.waiting().is_some());
        if let Some(stopped) = self.state.stopped() {
            table.stopped_partitions.insert(stopped.kind.unwrap_or(StopReason::Defect), 1);
        }
        table
    }

    /// Counts only grow.
    fn progress(&self, counts: FeedCounts) -> FeedProgress {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = FeedProgress::default();
        done.table.clone_from(&self.table);
        done.read_rows = counts.read;
        done.written_rows = counts.written;
        done.written_again = counts.written_again;
        done.missing_rows = counts.missing;
        done.dead_letters = counts.dead_letters;
        done.foreign_messages = self.bad_lines.load(Ordering::Relaxed);
        let mut progress = done.clone();
        progress.read_rows -= reported.read_rows;
        progress.written_rows -= reported.written_rows;
        progress.written_again -= reported.written_again;
        progress.missing_rows -= reported.missing_rows;
        progress.dead_letters -= reported.dead_letters;
        progress.foreign_messages -= reported.foreign_messages;
        *reported = done;
        progress
    }
}
