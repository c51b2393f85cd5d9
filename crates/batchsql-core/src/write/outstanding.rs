//! Owns which sealed batches have not ended, so that a flush knows when everything before it has.
//! Must not know what a batch holds.
//!
//! Batches are numbered when they are sealed. For example: batches 0, 1 and 2 are sealed; a flush starts and gets
//! `next() == 3`; batch 3 is sealed. The flush is answered when `oldest()` is at least 3 or there is none: when 0, 1
//! and 2 have ended, in whichever order.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The sealed batches that have not ended, by number, with the time of their oldest row.
#[derive(Debug, Default)]
pub(crate) struct Outstanding(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    batches: BTreeMap<u64, Instant>,
    next: u64,
}

impl Outstanding {
    /// Numbers a batch that was sealed just now.
    pub(crate) fn begin(&self, oldest_row: Instant) -> u64 {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.batches.insert(number, oldest_row);
        number
    }

    /// A batch has ended, or was merged into an older one.
    pub(crate) fn end(&self, number: u64) {
        self.lock().batches.remove(&number);
    }

    /// The number that the next batch gets.
    pub(crate) fn next(&self) -> u64 {
        self.lock().next
    }

    /// Whether every batch below a number has ended.
    pub(crate) fn have_ended_below(&self, number: u64) -> bool {
        self.lock().batches.first_key_value().is_none_or(|(oldest, _)| *oldest >= number)
    }

    /// Whether every batch has ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().batches.is_empty()
    }

    /// The time of the oldest row over all batches.
    pub(crate) fn oldest_row(&self) -> Option<Instant> {
        self.lock().batches.values().min().copied()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
