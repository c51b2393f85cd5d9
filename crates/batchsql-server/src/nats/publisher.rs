//! Owns what `[publish]` writes to.
//! Must not know NATS.

use std::pin::Pin;

use batchsql::DynSink;

use crate::exit::{Exit, Failure};

/// Ends when a stream is open.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<Exit, Failure>> + Send>>;

/// A sink of a stream.
pub(crate) struct Publisher {
    pub(crate) sink: DynSink,
    /// Has to run, or the stream is never opened; `None` if it is open.
    pub(crate) opening: Option<Opening>,
}
