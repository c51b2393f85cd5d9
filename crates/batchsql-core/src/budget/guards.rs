//! Owns the guards of capacity: for rows that are about to be accepted, and for failed rows that wait for a consumer.
//! Must not know who waits.

use std::fmt;
use std::sync::Arc;

use crate::budget::capacity::{Budget, Slot};
use crate::budget::count::number;

/// Capacity for rows that are about to be accepted. What is not kept returns to the budget on drop, so a cancelled
/// submit leaks no capacity.
#[must_use]
pub(crate) struct Reservation<'a> {
    budget: &'a Budget,
    rows: u32,
    bytes: u32,
}

impl<'a> Reservation<'a> {
    /// Guards capacity that was taken.
    #[inline]
    pub(super) fn of(budget: &'a Budget, rows: u32, bytes: u32) -> Self {
        Self { budget, rows, bytes }
    }

    /// Transfers the capacity of rows of `bytes` in all to their batch.
    #[inline]
    pub(crate) fn keep_rows(&mut self, rows: usize, bytes: usize) {
        let covered = "the reservation covers every row it was made for";
        self.rows = self.rows.checked_sub(number(rows)).expect(covered);
        self.bytes = self.bytes.checked_sub(number(bytes)).expect(covered);
    }
}

impl Drop for Reservation<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.rows > 0 || self.bytes > 0 {
            self.budget.give_back(self.rows, self.bytes);
        }
    }
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("rows", &self.rows).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The capacity of one row that has an outcome and waits for a consumer.
#[derive(Debug)]
pub(crate) struct HeldCapacity(Slot);

impl HeldCapacity {
    /// Guards the capacity of one row in use that nothing else releases. `charged` bytes of it are already counted. A
    /// row that was handed back takes `bytes`, usually more than in its batch. The difference is counted even above the
    /// limit: submitters then wait until it is released.
    pub(crate) fn of_row(budget: &Arc<Budget>, charged: usize, bytes: usize) -> Self {
        let (_, more) = budget.count.take_regardless(0, bytes.saturating_sub(charged));
        let slot = Slot { budget: Arc::clone(budget), rows: 1, bytes: number(charged) + more };
        budget.count.hold(slot.rows, slot.bytes);
        Self(slot)
    }

    /// Whether it is capacity of this budget.
    pub(crate) fn is_of(&self, budget: &Budget) -> bool {
        std::ptr::eq(&*self.0.budget, budget)
    }

    /// Turns it into a reservation for one row of `bytes`. Returns itself if that needs more capacity than is free.
    pub(crate) fn reuse<'a>(mut self, budget: &'a Budget, bytes: usize) -> Result<Reservation<'a>, Self> {
        debug_assert!(self.is_of(budget), "capacity moves within its own budget");
        let more = number(bytes).saturating_sub(self.0.bytes);
        if !budget.count.take(0, more) {
            return Err(self);
        }
        let (rows, bytes) = self.0.take();
        budget.count.hold_no_more(rows, bytes);
        Ok(Reservation::of(budget, rows, bytes + more))
    }
}

impl Drop for HeldCapacity {
    fn drop(&mut self) {
        let (rows, bytes) = self.0.take();
        if rows > 0 || bytes > 0 {
            // In this order, so that the capacity always counts as held or as free.
            self.0.budget.give_back(rows, bytes);
            self.0.budget.count.hold_no_more(rows, bytes);
        }
    }
}
