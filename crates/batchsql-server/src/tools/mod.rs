//! Commands that look into what the service leaves on disk: `letters` (dead letters; `foreign` has messages of a stream, which
//! `republish` publishes again) and `log` (the durable intake). `marked` says which letters were replayed.

mod foreign;
mod in_use;
pub(crate) mod letters;
pub(crate) mod log;
mod marked;
#[cfg(feature = "nats")]
mod republish;
