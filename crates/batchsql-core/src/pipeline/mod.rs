//! What callers hold: the builder and the handle.
//! Must not know how batches are written.

pub(crate) mod builder;
pub(crate) mod error;
pub(crate) mod handle;
