//! Owns the budget of rows and bytes that may wait or be on their way: the only thing that makes a
//! submitter wait, and who is next when there is room. Must not know rows, batches or databases.
//!
//! Room is taken with one compare-and-swap while nobody waits. Who finds none waits in the line of its
//! table; the lines take turns. A table may have at most [`SHARE`] times as many rows sealed as there is
//! room left ("dynamic threshold", Choudhury and Hahne, 1998): a table that cannot be written takes eight
//! ninths of the buffer, two such tables eight seventeenths each, and there is always room for others.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use crate::budget::share::Share;
use crate::budget::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, fence};

/// How many times the free room a table may hold in sealed batches.
const SHARE: usize = 8;

/// In `waiting`: no more rows are accepted.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A hard bound over everything that was accepted and has no outcome yet.
pub(crate) struct Budget {
    /// Rows in the upper half, bytes in the lower one, so that both are taken at once or not at all.
    used: AtomicU64,
    /// How many wait in the lines, and whether the budget is closed. While it is not zero, room is only
    /// taken under the lock of the lines.
    waiting: AtomicUsize,
    /// How many have left the lines with room and have not been woken yet.
    waking: AtomicUsize,
    /// Rows and bytes in use by rows that have their outcome already.
    held: AtomicU64,
    lines: Mutex<Lines>,
    /// Whether there are several tables, so that shares matter.
    shared: AtomicBool,
    rows_limit: u32,
    bytes_limit: u32,
}

/// Who waits, one line per table; the tables take turns.
#[derive(Default)]
struct Lines {
    turns: VecDeque<usize>,
    lines: HashMap<usize, VecDeque<Waiter>>,
    next_ticket: u64,
}

struct Waiter {
    /// Ascending within a line.
    ticket: u64,
    budget: Arc<Budget>,
    share: Arc<Share>,
    rows: u32,
    bytes: u32,
    baton: oneshot::Sender<Granted>,
}

/// Why there is no reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
}

/// What someone waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Room that others have: so many rows and bytes are lacking.
    Room { rows: usize, bytes: usize },
    /// This table has more than its share.
    Share { table: usize },
}

/// Room for rows that are about to be accepted. What is not kept goes back when it is dropped, so a
/// cancelled submit leaks nothing.
#[must_use]
pub(crate) struct Reservation<'a> {
    budget: &'a Budget,
    rows: u32,
    bytes: u32,
}

impl Reservation<'_> {
    /// Hands room for one row of `bytes` over to the batch that carries it.
    #[inline]
    pub(crate) fn keep_row(&mut self, bytes: usize) {
        let covered = "the reservation covers every row it was made for";
        self.rows = self.rows.checked_sub(1).expect(covered);
        self.bytes = self.bytes.checked_sub(count(bytes)).expect(covered);
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

/// The room of one row that has its outcome, and waits for a consumer.
#[derive(Debug)]
pub(crate) struct HeldRoom(Room);

impl HeldRoom {
    /// Answers for the room of one row that is in use and will not be released otherwise: `charged` bytes of it are
    /// in the count already. A row that was handed back takes `bytes`, usually more than it took in its batch. The
    /// difference is counted even if that is more than the limit: submitters then wait until it is given back.
    pub(crate) fn of_row(budget: &Arc<Budget>, charged: usize, bytes: usize) -> Self {
        let more = budget.hold_more(bytes.saturating_sub(charged));
        let room = Room { budget: Arc::clone(budget), rows: 1, bytes: count(charged) + more };
        budget.held.fetch_add(pack(room.rows, room.bytes), Ordering::SeqCst);
        Self(room)
    }
}

impl HeldRoom {
    /// Whether it is room of this budget.
    pub(crate) fn is_of(&self, budget: &Budget) -> bool {
        std::ptr::eq(&*self.0.budget, budget)
    }

    /// Makes a reservation for one row of `bytes` out of it; back if that needs more room than there is.
    pub(crate) fn reuse<'a>(self, budget: &'a Budget, bytes: usize) -> Result<Reservation<'a>, Self> {
        debug_assert!(self.is_of(budget), "room moves within its own budget");
        let more = count(bytes).saturating_sub(self.0.bytes);
        if !budget.take(0, more) {
            return Err(self);
        }
        let mut room = self;
        let held = (room.0.rows, room.0.bytes);
        room.0.budget.held.fetch_sub(pack(held.0, held.1), Ordering::SeqCst);
        let (rows, bytes) = room.0.take();
        Ok(Reservation { budget, rows, bytes: bytes + more })
    }
}

impl Drop for HeldRoom {
    fn drop(&mut self) {
        let (rows, bytes) = self.0.take();
        if rows > 0 || bytes > 0 {
            // In this order, so that nobody sees room that is neither there nor about to come.
            self.0.budget.give_back(rows, bytes);
            self.0.budget.held.fetch_sub(pack(rows, bytes), Ordering::SeqCst);
        }
    }
}

/// Room that goes back when it is dropped.
#[derive(Debug)]
struct Room {
    budget: Arc<Budget>,
    rows: u32,
    bytes: u32,
}

impl Room {
    fn take(&mut self) -> (u32, u32) {
        (std::mem::take(&mut self.rows), std::mem::take(&mut self.bytes))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let (rows, bytes) = self.take();
        if rows > 0 || bytes > 0 {
            self.budget.give_back(rows, bytes);
        }
    }
}

/// Room on its way to a submitter that waits. If the submitter has gone away, it goes back.
struct Granted {
    room: Room,
    _waking: Waking,
}

/// Counts a submitter that has got room until it is awake, or gone.
struct Waking(Arc<Budget>);

impl Drop for Waking {
    fn drop(&mut self) {
        self.0.waking.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A place in a line, left when the submitter goes away.
struct Place<'a> {
    budget: &'a Budget,
    table: usize,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        {
            let mut lines = self.budget.lines();
            if !lines.leave(self.table, self.ticket) {
                return;
            }
            self.budget.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        // Others may have waited for this one to have its turn.
        self.budget.serve();
    }
}

impl Lines {
    fn join(&mut self, table: usize, waiter: Waiter) {
        let line = self.lines.entry(table).or_default();
        if line.is_empty() {
            self.turns.push_back(table);
        }
        line.push_back(waiter);
    }

    /// Takes a waiter out of the middle of its line; false when it has left already.
    fn leave(&mut self, table: usize, ticket: u64) -> bool {
        let Some(line) = self.lines.get_mut(&table) else { return false };
        let Ok(place) = line.binary_search_by_key(&ticket, |waiter| waiter.ticket) else { return false };
        line.remove(place);
        if line.is_empty() {
            self.lines.remove(&table);
            self.turns.retain(|turn| *turn != table);
        }
        true
    }

    /// The table whose turn it is, among those that `may` have room.
    fn next_turn(&self, may: impl Fn(&Share) -> bool) -> Option<usize> {
        self.turns.iter().position(|table| self.lines[table].front().is_some_and(|waiter| may(&waiter.share)))
    }

    /// Takes the first waiter of the table that has turn number `turn`, whose next turn is the last.
    fn call(&mut self, turn: usize) -> Waiter {
        let table = self.turns.remove(turn).expect("the turn was found just now");
        let line = self.lines.get_mut(&table).expect("a table with a turn has a line");
        let waiter = line.pop_front().expect("a line is never empty");
        if line.is_empty() {
            self.lines.remove(&table);
        } else {
            self.turns.push_back(table);
        }
        waiter
    }
}

impl Budget {
    /// Both limits are at most `u32::MAX`, which the configuration checks.
    pub(crate) fn new(rows: usize, bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            waking: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            lines: Mutex::new(Lines::default()),
            shared: AtomicBool::new(false),
            rows_limit: count(rows),
            bytes_limit: count(bytes),
        })
    }

    pub(crate) fn rows_limit(&self) -> usize {
        self.rows_limit as usize
    }

    pub(crate) fn bytes_limit(&self) -> usize {
        self.bytes_limit as usize
    }

    /// Rows and bytes in use.
    pub(crate) fn used(&self) -> (usize, usize) {
        let (rows, bytes) = unpack(self.used.load(Ordering::SeqCst));
        (rows as usize, bytes as usize)
    }

    /// There are several tables from now on.
    pub(crate) fn share_fairly(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }

    /// What those who wait lack; `None` when nobody waits.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let waiting = self.waiting.load(Ordering::SeqCst);
        if waiting == 0 || waiting & CLOSED != 0 {
            return None;
        }
        let lines = self.lines();
        let Some(turn) = lines.next_turn(|share| !self.is_over(share)) else {
            return lines.turns.front().map(|table| Wanted::Share { table: *table });
        };
        let waiter = lines.lines[&lines.turns[turn]].front().expect("a line is never empty");
        let (rows, bytes) = self.used();
        let lacking = |wanted: u32, free: usize| (wanted as usize).saturating_sub(free);
        Some(Wanted::Room {
            rows: lacking(waiter.rows, self.rows_limit().saturating_sub(rows)),
            bytes: lacking(waiter.bytes, self.bytes_limit().saturating_sub(bytes)),
        })
    }

    /// Rows and bytes of rows that have their outcome, and whose consumers have not taken them.
    pub(crate) fn held(&self) -> (usize, usize) {
        let (rows, bytes) = unpack(self.held.load(Ordering::SeqCst));
        (rows as usize, bytes as usize)
    }

    /// Whether someone has got room and has not been woken yet.
    pub(crate) fn is_waking(&self) -> bool {
        self.waking.load(Ordering::SeqCst) > 0
    }

    /// Room without waiting.
    #[inline]
    pub(crate) fn try_reserve(
        &self,
        table: usize,
        share: &Share,
        rows: usize,
        bytes: usize,
    ) -> Result<Reservation<'_>, Refusal> {
        let (rows, bytes) = (count(rows), count(bytes));
        let nobody_waits = self.waiting.load(Ordering::SeqCst) == 0;
        if nobody_waits && !self.is_over(share) && self.take(rows, bytes) {
            return Ok(Reservation { budget: self, rows, bytes });
        }
        self.try_reserve_slowly(table, share, rows, bytes)
    }

    /// Nobody overtakes the line of its own table, nor anyone who has a right to the room that is left.
    #[cold]
    fn try_reserve_slowly(
        &self,
        table: usize,
        share: &Share,
        rows: u32,
        bytes: u32,
    ) -> Result<Reservation<'_>, Refusal> {
        if self.waiting.load(Ordering::SeqCst) & CLOSED != 0 {
            return Err(Refusal::Closed);
        }
        let lines = self.lines();
        let overtakes = lines.lines.contains_key(&table) || lines.next_turn(|share| !self.is_over(share)).is_some();
        if overtakes || self.is_over(share) || !self.take(rows, bytes) {
            return Err(Refusal::Full);
        }
        Ok(Reservation { budget: self, rows, bytes })
    }

    /// Waits for room in the line of `table`; `on_wait` is called once the submitter stands in it.
    ///
    /// Cancel safe: who goes away leaves the line, or gives the room back.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        table: usize,
        share: &Arc<Share>,
        rows: usize,
        bytes: usize,
        on_wait: impl FnOnce(),
    ) -> Result<Reservation<'_>, Refusal> {
        let (baton, granted) = oneshot::channel();
        let place = {
            let mut lines = self.lines();
            if self.waiting.fetch_add(1, Ordering::SeqCst) & CLOSED != 0 {
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                return Err(Refusal::Closed);
            }
            let ticket = lines.next_ticket;
            lines.next_ticket += 1;
            let (budget, share) = (Arc::clone(self), Arc::clone(share));
            lines.join(table, Waiter { ticket, budget, share, rows: count(rows), bytes: count(bytes), baton });
            Place { budget: self, table, ticket }
        };
        // With the fence in `give_back`: either the room that is given back is seen here, or who gives it
        // back sees that someone waits.
        fence(Ordering::SeqCst);
        self.serve();
        on_wait();
        let granted = granted.await;
        drop(place);
        let mut granted = granted.map_err(|_| Refusal::Closed)?;
        let (rows, bytes) = granted.room.take();
        Ok(Reservation { budget: self, rows, bytes })
    }

    /// Gives back the room of rows that have their outcome.
    pub(crate) fn release(self: &Arc<Self>, rows: usize, bytes: usize) {
        self.give_back(count(rows), count(bytes));
    }

    /// Refuses everyone who waits and everyone who comes.
    pub(crate) fn close(&self) {
        let gone = {
            let mut lines = self.lines();
            self.waiting.store(CLOSED, Ordering::SeqCst);
            std::mem::take(&mut *lines)
        };
        // Dropping the batons wakes those who hold their other ends.
        drop(gone);
    }

    /// Whether a table holds more than its share, so that it must leave the room to others.
    #[inline]
    fn is_over(&self, share: &Share) -> bool {
        if !self.shared.load(Ordering::Relaxed) {
            return false;
        }
        let (rows, bytes) = self.used();
        let is_over = |held: usize, free: usize| held > free.saturating_mul(SHARE);
        is_over(share.rows(), self.rows_limit().saturating_sub(rows))
            || is_over(share.bytes(), self.bytes_limit().saturating_sub(bytes))
    }

    /// Takes room if there is enough of both.
    #[inline]
    fn take(&self, rows: u32, bytes: u32) -> bool {
        let mut used = self.used.load(Ordering::SeqCst);
        loop {
            let (used_rows, used_bytes) = unpack(used);
            // Failed rows may hold more bytes than there are, see `hold_more`.
            let fits = rows <= self.rows_limit.saturating_sub(used_rows)
                && bytes <= self.bytes_limit.saturating_sub(used_bytes);
            if !fits {
                return false;
            }
            let more = used + pack(rows, bytes);
            match self.used.compare_exchange_weak(used, more, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => used = now,
            }
        }
    }

    /// Counts bytes that are there whether they fit or not; returns how many, which is fewer only where the count
    /// itself would overflow.
    fn hold_more(&self, bytes: usize) -> u32 {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut used = self.used.load(Ordering::SeqCst);
        loop {
            let more = wanted.min(u32::MAX - unpack(used).1);
            match self.used.compare_exchange_weak(used, used + pack(0, more), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return more,
                Err(now) => used = now,
            }
        }
    }

    fn give_back(&self, rows: u32, bytes: u32) {
        self.used.fetch_sub(pack(rows, bytes), Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) & !CLOSED != 0 {
            self.serve();
        }
    }

    /// Gives room to those who wait, for as long as there is some for the one whose turn it is.
    fn serve(&self) {
        loop {
            let mut lines = self.lines();
            let Some(turn) = lines.next_turn(|share| !self.is_over(share)) else { return };
            let (rows, bytes) = {
                let waiter = lines.lines[&lines.turns[turn]].front().expect("a line is never empty");
                (waiter.rows, waiter.bytes)
            };
            if !self.take(rows, bytes) {
                return;
            }
            let waiter = lines.call(turn);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            self.waking.fetch_add(1, Ordering::SeqCst);
            drop(lines);
            let room = Room { budget: Arc::clone(&waiter.budget), rows, bytes };
            let granted = Granted { room, _waking: Waking(waiter.budget) };
            // A submitter that has gone away meanwhile leaves the room to the next one, in this loop.
            if let Err(mut unclaimed) = waiter.baton.send(granted) {
                let (rows, bytes) = unclaimed.room.take();
                self.used.fetch_sub(pack(rows, bytes), Ordering::SeqCst);
            }
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Nothing panics while it is held.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pack(rows: u32, bytes: u32) -> u64 {
    u64::from(rows) << 32 | u64::from(bytes)
}

fn unpack(used: u64) -> (u32, u32) {
    ((used >> 32) as u32, used as u32)
}

fn count(permits: usize) -> u32 {
    u32::try_from(permits).expect("callers stay within the limits, which fit u32")
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, bytes) = self.used();
        f.debug_struct("Budget").field("rows", &rows).field("bytes", &bytes).finish_non_exhaustive()
    }
}

#[cfg(all(test, batchsql_loom))]
#[path = "count_interleavings.rs"]
mod interleavings;
#[cfg(all(test, not(batchsql_loom)))]
#[path = "count_tests.rs"]
mod tests;
