//! Owns how far the log is with one partition, for its source and for counts.
//! Must not know the task that reads it.

use std::sync::Arc;
use std::time::SystemTime;

use batchsql_feed::PartitionState;
use batchsql_log::TableId;
use tokio::sync::watch;

/// One partition of the log. Its sequences have no holes.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) table: TableId,
    pub(crate) state: Arc<PartitionState>,
    /// The last row that is in the log.
    pub(crate) appended: watch::Sender<u64>,
    /// The last row that was in the log before the first one of this process.
    pub(crate) recovered: u64,
    /// Rows up to this one had ended before the start. Only counts use it: whether a row is written depends on the state.
    base: u64,
}

impl Stream {
    /// Its first row of this process is `first`. When the log was opened, it had rows up to `ended`, and none of them waited.
    pub(crate) fn begin_at(table: TableId, name: &str, partition: u32, first: u64, ended: u64) -> Self {
        let state = Arc::new(PartitionState::new(name, partition, ended));
        Self { table, state, appended: watch::Sender::default(), recovered: ended, base: first - 1 }
    }

    /// With rows from before the start behind `settled` up to `last`, none of them before `oldest`.
    pub(crate) fn resume(
        table: TableId,
        name: &str,
        partition: u32,
        settled: u64,
        last: u64,
        oldest: SystemTime,
    ) -> Self {
        let state = Arc::new(PartitionState::new(name, partition, settled));
        state.waits_since(oldest);
        Self { table, state, appended: watch::Sender::new(last), recovered: last, base: 0 }
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
