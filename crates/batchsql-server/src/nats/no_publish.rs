//! Owns the answer of a program that was built without NATS.
//! Must not know NATS.

use batchsql::DynSink;

use crate::config::settings::{Publish, Settings};
use crate::exit::Failure;

/// # Errors
/// Always.
pub(crate) async fn publisher(_: &Publish, _: &Settings) -> Result<DynSink, Failure> {
    Err(Failure::mistake("this program was built without NATS; build it with the feature `nats`"))
}
