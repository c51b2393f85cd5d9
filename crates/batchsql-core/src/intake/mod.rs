//! How rows come in: the open batches of each table, and the order in which batches leave.
//! Must not know who writes a batch, or when.

pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod headroom;
pub(crate) mod lane;
pub(crate) mod message;
pub(crate) mod open_batch;
pub(crate) mod table;
