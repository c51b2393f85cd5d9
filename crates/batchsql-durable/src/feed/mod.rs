//! The log as the source of the rows that are written.
//! Must not know how rows got into the log, or how they are written: `batchsql-feed` does that.

pub(crate) mod claimed;
pub(crate) mod partitions;
pub(crate) mod recent;
pub(crate) mod source;
pub(crate) mod stream;
