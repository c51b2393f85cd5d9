//! Owns how far the log is with one partition, for its source and for counts.
//! Must not know the task that reads it.

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
}

impl Stream {
    /// Without rows that wait: its first row of this process is `first`. When the log was opened, it had rows up to `ended`.
    pub(crate) fn begin_at(table: TableId, state: PartitionState, first: u64, ended: u64, recent: Recent) -> Self {
        let (appended, state) = (watch::Sender::default(), Arc::new(state));
        Self { table, state, appended, recent, recovered: ended, base: first - 1 }
    }

    /// With rows from before the start up to `last`.
    pub(crate) fn resume(table: TableId, state: PartitionState, last: u64, recent: Recent) -> Self {
        let (appended, state) = (watch::Sender::new(last), Arc::new(state));
        Self { table, state, appended, recent, recovered: last, base: 0 }
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
        (appended.saturating_sub(settled), self.state.read().saturating_sub(settled))
    }
}
