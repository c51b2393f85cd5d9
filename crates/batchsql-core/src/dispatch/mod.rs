//! Which batch is written next.
//! Must not know rows or databases.

pub(crate) mod dispatcher;
pub(crate) mod schedule;
