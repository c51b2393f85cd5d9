//! Owns the calls that wait for the end of work: flush and close.
//! Must not know how rows are stored or written.

use std::time::Duration;

use batchsql_core::Balance;
use tokio::time::Instant;

use crate::ending::{begin, drained, end_by, run};
use crate::error::DurableFlushError;
use crate::handle::DurableBatchSql;
use crate::health::DurableCloseReport;
use crate::shared::Shared;

impl DurableBatchSql {
    /// Waits until every row that was stored before this call has ended: it is in the table, or in the dead-letter file. It
    /// waits for as long as the database is unreachable.
    ///
    /// # Errors
    /// A partition has stopped, see [`health`](Self::health), or the intake is closed meanwhile. Rows that have not ended
    /// stay in the log.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the writing.
    pub async fn flush(&self) -> Result<Balance, DurableFlushError> {
        let shared = self.shared();
        if drained(shared).await { Ok(shared.pipeline.balance()) } else { Err(why_not(shared)) }
    }

    /// Refuses new rows, writes those that are stored until the deadline, and closes the log. Rows that have not ended by
    /// then stay in the log, and the next start writes them: with a deadline of zero it ends as soon as it can. At least once, a
    /// write that is under way at the deadline is written again by the next start, and so are rows that were written behind one
    /// that was not, if they keep an order: rows of a table with a key, or of one with `Ordering::PerTable`.
    ///
    /// Every call, from any clone, gets the same report; the earliest deadline of all calls holds, so a second call can
    /// shorten the first one.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the closing.
    pub async fn close(&self, deadline: Duration) -> DurableCloseReport {
        let mut closing = begin(self.shared(), deadline);
        let report = closing.wait_for(Option::is_some).await.map(|report| report.clone());
        match report.ok().flatten() {
            Some(report) => report,
            // The runtime of the intake has ended, and with it the task that closes.
            None => {
                end_by(self.shared(), Instant::now());
                run(self.shared()).await
            }
        }
    }
}

fn why_not(shared: &Shared) -> DurableFlushError {
    let stopped = shared.partitions.feeds.stopped();
    if stopped.is_empty() { DurableFlushError::closed() } else { DurableFlushError::stopped(stopped) }
}
