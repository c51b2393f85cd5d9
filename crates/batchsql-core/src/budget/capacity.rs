//! Owns the budget: what is free goes to those who wait, in turn, and what is given back is free again.
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
    /// How many wait in the lines, and whether the budget is closed. While it is not zero, capacity is only
    /// taken under the lock of the lines.
    waiting: AtomicUsize,
    /// How many have left the lines with capacity and have not been woken yet.
    waking: AtomicUsize,
    lines: Mutex<Lines<Call>>,
}

/// How a waiter is called: its budget, so that what it gets can go back, and the other end of its wait.
pub(super) struct Call {
    pub(super) budget: Arc<Budget>,
    pub(super) grant: oneshot::Sender<Granted>,
}

/// What someone waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Capacity that others have: so many rows and bytes are lacking.
    Capacity { rows: usize, bytes: usize },
    /// This table has more than its share.
    Share { table: usize },
}

/// Capacity that goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(super) budget: Arc<Budget>,
    pub(super) rows: u32,
    pub(super) bytes: u32,
}

impl Slot {
    /// Takes over what goes back otherwise.
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

/// Capacity on its way to a submitter that waits. If the submitter has gone away, it goes back.
pub(super) struct Granted {
    pub(super) slot: Slot,
    _waking: Waking,
}

/// Counts a submitter that has got capacity until it is awake, or gone.
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

    /// Rows and bytes of rows that have their outcome, and whose consumers have not taken them.
    pub(crate) fn held(&self) -> (usize, usize) {
        self.count.held()
    }

    /// There are several tables from now on.
    pub(crate) fn share_fairly(&self) {
        self.count.share_fairly();
    }

    /// What those who wait lack; `None` when nobody waits.
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

    /// Whether someone has got capacity and has not been woken yet.
    pub(crate) fn is_waking(&self) -> bool {
        self.waking.load(Ordering::SeqCst) > 0
    }

    /// Gives back the capacity of rows that have their outcome.
    pub(crate) fn release(&self, rows: usize, bytes: usize) {
        self.give_back(number(rows), number(bytes));
    }

    /// Refuses everyone who waits and everyone who comes.
    pub(crate) fn close(&self) {
        let gone = {
            let mut lines = self.lines();
            self.waiting.store(CLOSED, Ordering::SeqCst);
            std::mem::take(&mut *lines)
        };
        // Dropping the calls wakes those who hold their other ends.
        drop(gone);
    }

    /// How many wait, also after the budget was closed.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst) & !CLOSED
    }

    pub(super) fn is_closed(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Whether nobody waits and the budget is open.
    #[inline]
    pub(super) fn is_uncontended(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    /// Counts one more who waits, under the lock of the lines; false when the budget is closed.
    pub(super) fn count_waiter(&self) -> bool {
        if self.waiting.fetch_add(1, Ordering::SeqCst) & CLOSED != 0 {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Counts one less who waits, under the lock of the lines.
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

    /// Gives capacity to those who wait, for as long as there is some for the one whose turn it is.
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
            // A submitter that has gone away meanwhile leaves the capacity to the next one, in this loop.
            if let Err(mut unclaimed) = grant.send(Granted { slot, _waking: Waking(budget) }) {
                let (rows, bytes) = unclaimed.slot.take();
                self.count.put_back(rows, bytes);
            }
        }
    }

    pub(super) fn lines(&self) -> MutexGuard<'_, Lines<Call>> {
        // Nothing panics while it is held.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, bytes) = self.used();
        f.debug_struct("Budget").field("rows", &rows).field("bytes", &bytes).finish_non_exhaustive()
    }
}
