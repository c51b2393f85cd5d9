//! How rows get into the log: rows of many submitters share blocks.
//! Must not know who submits, or who reads the log.
//!
//! While a group of blocks is being written, rows are gathered for the next group: one block per schema and partition. So a
//! lone submitter waits for one sync, and under load the blocks grow with it. There is no timer.

pub(crate) mod appender;
pub(crate) mod gather;
pub(crate) mod in_flight;
pub(crate) mod space_log;
