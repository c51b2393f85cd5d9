//! Owns what callers can learn about the buffer before they have a row: how full it is, and when there is capacity.
//! Must not know rows or batches.

use std::sync::Arc;

use crate::budget::reserve::Refusal;
use crate::budget::share::Share;
use crate::config_policies::WhenFull;
use crate::pipeline::error::SubmitError;
use crate::pipeline::handle::BatchSql;
use crate::pipeline::submit::submit_error;

/// The line of those who wait for capacity without a row. No table has this number.
const NO_TABLE: usize = usize::MAX;

/// A row of ordinary size takes at most this part of the byte budget, so that one huge row in the buffer does not delay
/// the answer until it is written.
const ORDINARY: usize = 16;

impl BatchSql {
    /// How full the buffer is, from 0 (empty) to 1 (full): the part of `buffer_size` or that of `buffer_bytes` which is
    /// in use, whichever is higher. It costs two loads of a number, so a server can ask for every request.
    ///
    /// A server that takes rows should slow its clients down before the buffer is full:
    ///
    /// ```
    /// # use batchsql_core::BatchSql;
    /// /// The status for a request, and the seconds of `Retry-After`.
    /// fn admit(db: &BatchSql) -> (u16, Option<u32>) {
    ///     match db.pressure() {
    ///         pressure if pressure < 0.8 => (202, None),
    ///         pressure if pressure < 0.95 => (429, Some(1)),
    ///         _ => (429, Some(10)),
    ///     }
    /// }
    /// # let _ = admit;
    /// ```
    pub fn pressure(&self) -> f64 {
        let budget = &self.0.pipeline.ledger.budget;
        let (rows, bytes) = budget.used();
        let part = |used: usize, limit: usize| used as f64 / limit as f64;
        // Failed rows that wait for a dead-letter consumer may take more than the limit.
        part(rows, budget.rows_limit()).max(part(bytes, budget.bytes_limit())).min(1.0)
    }

    /// Returns when a row of ordinary size could be accepted: one with the mean size of the rows in the buffer. It waits
    /// in turn with the submitters. With [`WhenFull::DropOldest`] it returns at once.
    ///
    /// This is a hint: it reserves nothing, so another submitter may take the capacity before the caller does, a larger
    /// row may need more, and a table that has more than its share of the buffer still waits. To have capacity for
    /// certain, submit.
    ///
    /// # Errors
    /// The pipeline is closed.
    ///
    /// # Cancel safety
    /// Dropping it is safe: nothing is held.
    pub async fn ready(&self) -> Result<(), SubmitError> {
        if self.0.config.when_full == WhenFull::DropOldest {
            return if self.0.pipeline.ledger.budget.is_closed() { Err(SubmitError::closed()) } else { Ok(()) };
        }
        let budget = &self.0.pipeline.ledger.budget;
        let (rows, bytes) = budget.used();
        let ordinary = bytes.checked_div(rows).unwrap_or(0).min(budget.bytes_limit() / ORDINARY);
        let share = Arc::<Share>::default();
        match budget.try_reserve(NO_TABLE, &share, 1, ordinary) {
            Ok(_) => Ok(()),
            Err(Refusal::Closed) => Err(SubmitError::closed()),
            Err(Refusal::Full) => {
                let capacity = budget.reserve(NO_TABLE, &share, 1, ordinary, || self.ask_for_capacity());
                capacity.await.map(drop).map_err(submit_error)
            }
        }
    }
}
