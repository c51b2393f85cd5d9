//! How rows of the log reach the pipeline, and when they are settled.
//! Must not know how rows got into the log.
//!
//! Each partition of a table has a task (`stream`) that reads its blocks in order, submits their rows to the pipeline, and
//! follows their outcomes. It settles the rows from the front of the partition up to the first one that has not ended. So a
//! row is never settled before an earlier row of its key, and after a crash the rows from there on are written again, in
//! order.
//!
//! Worked example, three rows in two batches: rows 1 (key a), 2 (key b) and 3 (key a) are read. Rows 1 and 2 are in a batch
//! whose reply is lost, so both end as unknown; row 3 is written by the next batch. Nothing is settled, because row 1 is at
//! the front. When no row is in flight, rows 1, 2 and 3 are submitted again in this order: row 3 too, because row 1 has its
//! key and would overwrite it. All three are written, and 1 to 3 are settled.

pub(crate) mod claimed;
pub(crate) mod context;
pub(crate) mod exactly;
pub(crate) mod feeds;
pub(crate) mod letters;
pub(crate) mod partition;
pub(crate) mod rows;
mod search;
pub(crate) mod stream;
pub(crate) mod window;
