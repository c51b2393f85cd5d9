//! What callers hold: the builder and the handle.
//! Must not know how batches are written.

pub(crate) mod builder;
mod chunks;
mod close;
pub(crate) mod error;
pub(crate) mod handle;
mod readiness;
pub(crate) mod replay;
pub(crate) mod replay_mark;
pub(crate) mod report;
#[cfg(feature = "sink")]
pub(crate) mod row_sink;
pub(crate) mod steps;
mod submit;
mod submit_rows;
mod submit_serde;
mod together;
mod validate;
