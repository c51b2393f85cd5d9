//! Owns the waiting submitters, one line per table, and whose turn it is.
//! Must not know how much capacity there is or how a waiter is woken.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::budget::share::Share;

/// The lines of waiting submitters; the tables take turns.
pub(crate) struct Lines<C> {
    turns: VecDeque<usize>,
    lines: HashMap<usize, VecDeque<Waiter<C>>>,
    next_ticket: u64,
}

/// A submitter that waits for rows and bytes, and how to wake it.
pub(crate) struct Waiter<C> {
    /// Ascending within a line.
    ticket: u64,
    share: Arc<Share>,
    pub(crate) rows: u32,
    pub(crate) bytes: u32,
    pub(crate) call: C,
}

impl<C> Default for Lines<C> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), lines: HashMap::new(), next_ticket: 0 }
    }
}

impl<C> Lines<C> {
    /// Appends a waiter to the line of `table`; `leave` takes the returned ticket.
    pub(crate) fn join(&mut self, table: usize, share: Arc<Share>, (rows, bytes): (u32, u32), call: C) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let line = self.lines.entry(table).or_default();
        if line.is_empty() {
            self.turns.push_back(table);
        }
        line.push_back(Waiter { ticket, share, rows, bytes, call });
        ticket
    }

    /// Removes a waiter from its line; false if it already left.
    pub(crate) fn leave(&mut self, table: usize, ticket: u64) -> bool {
        let Some(line) = self.lines.get_mut(&table) else { return false };
        let Ok(position) = line.binary_search_by_key(&ticket, |waiter| waiter.ticket) else { return false };
        line.remove(position);
        if line.is_empty() {
            self.lines.remove(&table);
            self.turns.retain(|turn| *turn != table);
        }
        true
    }

    /// Whether a submitter waits in the line of `table`.
    pub(crate) fn has_line(&self, table: usize) -> bool {
        self.lines.contains_key(&table)
    }

    /// The table whose turn is first.
    pub(crate) fn first_table(&self) -> Option<usize> {
        self.turns.front().copied()
    }

    /// The next turn among the tables that `may` have capacity.
    pub(crate) fn next_turn(&self, may: impl Fn(&Share) -> bool) -> Option<usize> {
        self.turns.iter().position(|table| self.lines[table].front().is_some_and(|waiter| may(&waiter.share)))
    }

    /// The first waiter of the table that has turn number `turn`.
    pub(crate) fn first(&self, turn: usize) -> &Waiter<C> {
        self.lines[&self.turns[turn]].front().expect("a line is never empty")
    }

    /// Removes that waiter and moves its table to the last turn.
    pub(crate) fn take_first(&mut self, turn: usize) -> Waiter<C> {
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

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.lines.is_empty()
    }
}
