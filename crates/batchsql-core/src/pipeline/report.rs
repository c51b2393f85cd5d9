//! Owns what `close` reports.
//! Must not know how the pipeline drains.

use std::fmt;
use std::time::Duration;

use crate::outcome::ledger::Balance;
use crate::outcome::outcomes::Outcome;

/// The result of `close`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CloseReport {
    /// The outcomes of all rows since the start; no row is in flight.
    pub balance: Balance,
    /// The rows that were given up since `close` was called: the outcome of each, and why. Earlier ones went to their
    /// receipts and to the [dead letters](crate::DeadLetters).
    pub unwritten: Vec<Outcome>,
    /// Lines that were missing in a [dead-letter file](crate::DeadLetters::file) when `close` stopped waiting for it,
    /// because it could not be written; over all files. 0 is what you want.
    pub lost_letters: u64,
    /// How long draining took.
    pub took: Duration,
}

impl CloseReport {
    /// True when no row since the start of the pipeline failed: each was written, `Ignored` or `Superseded`. A row that
    /// was rejected, corrected and submitted again still counts as failed; [`unwritten`](Self::unwritten) lists what
    /// this call had to give up.
    pub fn is_complete(&self) -> bool {
        self.balance.failed() == 0 && self.balance.in_flight() == 0
    }
}

/// The balance, what is missing, and the time: `3 accepted, 3 written; closed in 0.02 s`.
impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.balance)?;
        if self.lost_letters > 0 {
            write!(f, "; {} lines are missing in dead-letter files", self.lost_letters)?;
        }
        write!(f, "; closed in {:.2} s", self.took.as_secs_f64())
    }
}
