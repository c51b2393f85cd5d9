//! Owns the answer of a program that was built without NATS.
//! Must not know NATS.

use crate::config::settings::{Publish, Settings};
use crate::exit::Failure;
use crate::nats::publisher::Publisher;

/// # Errors
/// Always.
pub(crate) async fn publisher(_: &Publish, _: &Settings) -> Result<Publisher, Failure> {
    Err(Failure::mistake("this program was built without NATS; build it with the feature `nats`"))
}
