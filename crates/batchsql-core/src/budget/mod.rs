//! The rows and bytes that may wait or be on their way: the only thing that makes a submitter wait.
//! Must not know rows, batches or databases.
//!
//! Capacity is taken with one compare-and-swap while nobody waits. A submitter that finds none waits in the line of its
//! table; the lines take turns. A table may hold at most eight times as many rows in sealed batches as are free
//! ("dynamic threshold", Choudhury and Hahne, 1998): a table that cannot be written takes eight ninths of the buffer,
//! two such tables eight seventeenths each, and there is always capacity for others.
//!
//! An example with two tables, `a` and `b`, and a buffer of two rows:
//!
//! 1. Row 1 of `a` reserves: one row is in use. The batch that carries it is sealed, so the share of `a` is one row.
//! 2. Row 2 of `a` reserves: `a` holds one row, and one is free. One is not above eight times one, so the row gets it.
//!    Two rows are in use, none is free, and `a` is over its share.
//! 3. Row 3 of `b` finds no capacity, counts itself as waiting, and joins the line of `b`. The share of `b` is zero, so
//!    `b` has the next turn. A row of `a` that comes now waits in the line of `a`.
//! 4. Row 1 is written. Its batch leaves the share of `a` first, then gives one row back. The one who gives back sees
//!    that somebody waits, takes the row for the first waiter of `b`, and wakes it.
//! 5. If the submitter of row 3 has gone away meanwhile, the guard that was sent to it gives the row back, and `a` has
//!    the next turn.

pub(crate) mod capacity;
pub(crate) mod count;
pub(crate) mod guards;
#[cfg(all(test, batchsql_loom))]
mod interleavings;
pub(crate) mod lines;
pub(crate) mod reserve;
pub(crate) mod share;
pub(crate) mod sync;
#[cfg(all(test, not(batchsql_loom)))]
mod tests;
