//! How a row gets into the columns of a batch.
//! Must not know batches in flight, or databases.

pub(crate) mod delete;
pub(crate) mod dynamic;
pub(crate) mod encode;
pub(crate) mod error;
pub(crate) mod key;
pub(crate) mod traits;
pub(crate) mod writer;
