//! Owns how far the log is with one partition, for its source and for counts.
//! Must not know the task that reads it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

use batchsql_feed::PartitionState;
use batchsql_log::TableId;
use tokio::sync::watch;

use crate::feed::recent::Recent;

/// One partition of the log. Its sequences have no holes.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) table: TableId,
    pub(crate) state: Arc<PartitionState>,
    /// The last row that is in the log.
    pub(crate) appended: watch::Sender<u64>,
    /// What was appended last.
    pub(crate) recent: Recent,
    /// The last row that was in the log before the first one of this process.
    pub(crate) recovered: u64,
    /// Rows up to this one had ended before the start. Only counts use it: whether a row is written depends on the state.
    base: u64,
    /// Rows that had ended before the start behind one that had not, in order. Only counts use them.
    behind: Vec<RangeInclusive<u64>>,
}

impl Stream {
    /// Without rows that wait: its first row of this process is `first`. When the log was opened, it had rows up to `ended`.
    pub(crate) fn begin_at(table: TableId, state: PartitionState, first: u64, ended: u64, recent: Recent) -> Self {
        let (appended, state) = (watch::Sender::default(), Arc::new(state));
        Self { table, state, appended, recent, recovered: ended, base: first - 1, behind: Vec::new() }
    }

    /// With rows from before the start up to `last`, of which those of `behind` have ended.
    pub(crate) fn resume(
        table: TableId,
        state: PartitionState,
        last: u64,
        behind: Vec<RangeInclusive<u64>>,
        recent: Recent,
    ) -> Self {
        let (appended, state) = (watch::Sender::new(last), Arc::new(state));
        Self { table, state, appended, recent, recovered: last, base: 0, behind }
    }

    /// Rows are in the log, up to `last`.
    pub(crate) fn append(&self, last: u64) {
        self.appended.send_if_modified(|appended| {
            let is_later = last > *appended;
            if is_later && self.state.settled() >= *appended {
                // Nothing waited, so these rows are the oldest.
                self.state.waits_since(SystemTime::now());
            }
            *appended = last.max(*appended);
            is_later
        });
    }

    /// When the first row that is not settled was stored; `None` if all are settled.
    pub(crate) fn oldest_unsettled(&self) -> Option<SystemTime> {
        let waits = self.state.settled() < *self.appended.borrow();
        waits.then(|| self.state.oldest())
    }

    /// Rows that are in the log and not settled, and how many of them were read.
    pub(crate) fn lag(&self) -> (u64, u64) {
        // What is settled first: it may grow meanwhile, and is never above the others.
        let settled = self.state.settled().max(self.base);
        let appended = *self.appended.borrow();
        let unsettled = |last: u64| last.saturating_sub(settled) - self.ended_within(settled + 1, last);
        (unsettled(appended), unsettled(self.state.read()))
    }

    /// How many of these rows had ended before the start, behind one that had not.
    fn ended_within(&self, first: u64, last: u64) -> u64 {
        if first > last {
            return 0;
        }
        let from = self.behind.partition_point(|rows| *rows.end() < first);
        let rows = self.behind[from..].iter().take_while(|rows| *rows.start() <= last);
        rows.map(|rows| (*rows.end()).min(last) - (*rows.start()).max(first) + 1).sum()
    }
}
