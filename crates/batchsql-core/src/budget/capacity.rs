//! Owns the budget: it grants free capacity to waiting submitters in turn, and takes released capacity back.
//! Must not know how a reservation is made or kept.

use std::fmt;
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use crate::budget::count::{Count, number};
use crate::budget::lines::Lines;
use crate::budget::share::Share;
use crate::budget::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, fence};

/// In `waiting`: no more rows are accepted.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A hard bound over everything that was accepted and has no outcome yet.
pub(crate) struct Budget {
    pub(super) count: Count,
    /// Number of submitters in the lines, and whether the budget is closed. While it is not zero, capacity is taken
    /// only under the lock of the lines.
    waiting: AtomicUsize,
    /// Number of submitters that got capacity and are not awake yet.
    waking: AtomicUsize,
    lines: Mutex<Lines<Call>>,
}

/// How to wake a waiter: the budget, to which an unused grant returns, and the sender of the grant.
pub(super) struct Call {
    pub(super) budget: Arc<Budget>,
    pub(super) grant: oneshot::Sender<Granted>,
}

/// What a submitter waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Capacity that is in use: this many rows and bytes are missing.
    Capacity { rows: usize, bytes: usize },
    /// This table has more than its share.
    Share { table: usize },
}

/// Capacity that returns to the budget on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(super) budget: Arc<Budget>,
    pub(super) rows: u32,
    pub(super) bytes: u32,
}

impl Slot {
    /// Takes the capacity out, so that it does not return on drop.
    pub(crate) fn take(&mut self) -> (u32, u32) {
        (std::mem::take(&mut self.rows), std::mem::take(&mut self.bytes))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (rows, bytes) = self.take();
        if rows > 0 || bytes > 0 {
            self.budget.give_back(rows, bytes);
        }
    }
}

/// Capacity that is sent to a waiting submitter. If the submitter is gone, it returns to the budget.
pub(super) struct Granted {
    pub(super) slot: Slot,
    _waking: Waking,
}

/// Counts a submitter that got capacity until it is awake or gone.
struct Waking(Arc<Budget>);

impl Drop for Waking {
    fn drop(&mut self) {
        self.0.waking.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Budget {
    /// Both limits are at most `u32::MAX`, which the configuration checks.
    pub(crate) fn new(rows: usize, bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            count: Count::new(rows, bytes),
            waiting: AtomicUsize::new(0),
            waking: AtomicUsize::new(0),
            lines: Mutex::new(Lines::default()),
        })
    }

    pub(crate) fn rows_limit(&self) -> usize {
        self.count.rows_limit()
    }

    pub(crate) fn bytes_limit(&self) -> usize {
        self.count.bytes_limit()
    }

    /// Rows and bytes in use.
    pub(crate) fn used(&self) -> (usize, usize) {
        self.count.used()
    }

    /// Rows and bytes of rows that have an outcome and wait for a dead-letter consumer.
    pub(crate) fn held(&self) -> (usize, usize) {
        self.count.held()
    }

    /// Enables the shares: there are several tables now.
    pub(crate) fn share_fairly(&self) {
        self.count.share_fairly();
    }

    /// What the next waiter needs; `None` if no submitter waits.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        if self.waiting() == 0 || self.is_closed() {
            return None;
        }
        let lines = self.lines();
        let Some(turn) = lines.next_turn(|share| self.may_have(share)) else {
            return lines.first_table().map(|table| Wanted::Share { table });
        };
        let waiter = lines.first(turn);
        let (rows, bytes) = self.used();
        let lacking = |wanted: u32, free: usize| (wanted as usize).saturating_sub(free);
        Some(Wanted::Capacity {
            rows: lacking(waiter.rows, self.rows_limit().saturating_sub(rows)),
            bytes: lacking(waiter.bytes, self.bytes_limit().saturating_sub(bytes)),
        })
    }

    /// Whether a submitter got capacity and is not awake yet.
    pub(crate) fn is_waking(&self) -> bool {
        self.waking.load(Ordering::SeqCst) > 0
    }

    /// Releases the capacity of rows that have an outcome.
    pub(crate) fn release(&self, rows: usize, bytes: usize) {
        self.give_back(number(rows), number(bytes));
    }

    /// Counts one row of `bytes` whether it fits the limit or not. [`release`](Self::release) gives it back.
    pub(crate) fn take_row_regardless(&self, bytes: usize) {
        self.count.take_regardless(1, bytes);
    }

    /// Refuses all waiting and all later submitters.
    pub(crate) fn close(&self) {
        let gone = {
            let mut lines = self.lines();
            self.waiting.store(CLOSED, Ordering::SeqCst);
            std::mem::take(&mut *lines)
        };
        // Dropping the calls wakes the waiting submitters.
        drop(gone);
    }

    /// Number of waiting submitters, also after the budget was closed.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst) & !CLOSED
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Whether no submitter waits and the budget is open.
    #[inline]
    pub(super) fn is_uncontended(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    /// Counts one more waiter, under the lock of the lines; false when the budget is closed.
    pub(super) fn count_waiter(&self) -> bool {
        if self.waiting.fetch_add(1, Ordering::SeqCst) & CLOSED != 0 {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Counts one waiter less, under the lock of the lines.
    pub(super) fn count_waiter_out(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn may_have(&self, share: &Share) -> bool {
        !self.count.is_over(share)
    }

    pub(super) fn give_back(&self, rows: u32, bytes: u32) {
        self.count.put_back(rows, bytes);
        fence(Ordering::SeqCst);
        if self.waiting() != 0 {
            self.serve();
        }
    }

    /// Grants capacity to waiters in turn, until there is not enough for the next one.
    pub(super) fn serve(&self) {
        loop {
            let mut lines = self.lines();
            let Some(turn) = lines.next_turn(|share| self.may_have(share)) else { return };
            let (rows, bytes) = (lines.first(turn).rows, lines.first(turn).bytes);
            if !self.count.take(rows, bytes) {
                return;
            }
            let Call { budget, grant } = lines.take_first(turn).call;
            self.count_waiter_out();
            self.waking.fetch_add(1, Ordering::SeqCst);
            drop(lines);
            let slot = Slot { budget: Arc::clone(&budget), rows, bytes };
            // If the submitter is gone, this loop grants the capacity to the next one.
            if let Err(mut unclaimed) = grant.send(Granted { slot, _waking: Waking(budget) }) {
                let (rows, bytes) = unclaimed.slot.take();
                self.count.put_back(rows, bytes);
            }
        }
    }

    pub(super) fn lines(&self) -> MutexGuard<'_, Lines<Call>> {
        // No code panics while the lock is held.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, bytes) = self.used();
        f.debug_struct("Budget").field("rows", &rows).field("bytes", &bytes).finish_non_exhaustive()
    }
}
