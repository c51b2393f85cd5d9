//! The rows and bytes that may wait or be on their way: the only thing that makes a submitter wait.
//! Must not know rows, batches or databases.

pub(crate) mod count;
pub(crate) mod share;
pub(crate) mod sync;
