//! The rows and bytes that may wait or be in flight: the only thing that makes a submitter wait.
//! Must not know rows, batches or databases.
//!
//! Capacity is taken with one compare-and-swap while no submitter waits. A submitter that finds none waits in the line
//! of its table; the lines take turns. A table may hold at most eight times as many rows in sealed batches as are free
//! ("dynamic threshold", Choudhury and Hahne, 1998): a table that cannot be written takes eight ninths of the buffer,
//! two such tables eight seventeenths each, and there is always capacity for other tables.
//!
//! Example with tables `a` and `b` and a buffer of two rows:
//!
//! 1. Row 1 of `a` is accepted into batch 1, which is sealed: one row is in use, and the share of `a` is one row.
//! 2. Row 2 of `a` reserves: `a` holds one row, and one is free. One is not more than eight times one, so row 2 gets
//!    the capacity, in batch 2. No row is free now, so `a` is over its share.
//! 3. Row 3 of `b` finds no capacity. Its submitter counts itself as waiting and joins the line of `b`. The share of `b`
//!    is zero, so `b` has the next turn. A further row of `a` waits in the line of `a`.
//! 4. Batch 1 is written. It leaves the share of `a` first, then returns one row. The thread that returns it sees that
//!    a submitter waits, takes the row for the first waiter of `b`, and wakes it.
//! 5. If the submitter of row 3 is gone meanwhile, the guard that was sent to it returns the row, and `a` has the next
//!    turn.

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
