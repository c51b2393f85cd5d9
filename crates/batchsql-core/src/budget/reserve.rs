//! Owns how a submitter gets capacity: at once, or by a wait in the line of its table.
//! Must not know what the capacity is for.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::budget::capacity::{Budget, Call};
use crate::budget::count::number;
use crate::budget::guards::Reservation;
use crate::budget::share::Share;
use crate::budget::sync::{Ordering, fence};

/// Why there is no reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
}

/// A position in a line. Dropping it leaves the line.
struct Position<'a> {
    budget: &'a Budget,
    table: usize,
    ticket: u64,
}

impl Drop for Position<'_> {
    fn drop(&mut self) {
        {
            let mut lines = self.budget.lines();
            if !lines.leave(self.table, self.ticket) {
                return;
            }
            self.budget.count_waiter_out();
        }
        // Other submitters may have waited for the turn of this one.
        self.budget.serve();
    }
}

impl Budget {
    /// Takes capacity without waiting.
    #[inline]
    pub(crate) fn try_reserve(
        &self,
        table: usize,
        share: &Share,
        rows: usize,
        bytes: usize,
    ) -> Result<Reservation<'_>, Refusal> {
        let (rows, bytes) = (number(rows), number(bytes));
        if self.is_uncontended() && self.may_have(share) && self.count.take(rows, bytes) {
            return Ok(Reservation::of(self, rows, bytes));
        }
        self.try_reserve_slowly(table, share, rows, bytes)
    }

    /// A submitter must not overtake the line of its own table, or a waiter that may have the remaining capacity.
    #[cold]
    fn try_reserve_slowly(
        &self,
        table: usize,
        share: &Share,
        rows: u32,
        bytes: u32,
    ) -> Result<Reservation<'_>, Refusal> {
        if self.is_closed() {
            return Err(Refusal::Closed);
        }
        let lines = self.lines();
        let overtakes = lines.has_line(table) || lines.next_turn(|share| self.may_have(share)).is_some();
        if overtakes || !self.may_have(share) || !self.count.take(rows, bytes) {
            return Err(Refusal::Full);
        }
        Ok(Reservation::of(self, rows, bytes))
    }

    /// Waits for capacity in the line of `table`; `on_wait` is called once the submitter is in the line.
    ///
    /// Cancel safe: a dropped call leaves the line, or returns the capacity.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        table: usize,
        share: &Arc<Share>,
        rows: usize,
        bytes: usize,
        on_wait: impl FnOnce(),
    ) -> Result<Reservation<'_>, Refusal> {
        let (grant, granted) = oneshot::channel();
        let position = {
            let mut lines = self.lines();
            if !self.count_waiter() {
                return Err(Refusal::Closed);
            }
            let call = Call { budget: Arc::clone(self), grant };
            let ticket = lines.join(table, Arc::clone(share), (number(rows), number(bytes)), call);
            Position { budget: self, table, ticket }
        };
        // Pairs with the fence in `give_back`: either this thread sees the returned capacity, or the thread that
        // returns it sees this waiter.
        fence(Ordering::SeqCst);
        self.serve();
        on_wait();
        let granted = granted.await;
        drop(position);
        let mut granted = granted.map_err(|_| Refusal::Closed)?;
        let (rows, bytes) = granted.slot.take();
        Ok(Reservation::of(self, rows, bytes))
    }
}
