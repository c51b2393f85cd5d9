//! The bytes of the log, which `FORMAT.md` describes: encoders, and decoders that check every length before they use it.
//! Must not know threads, and reads no files.

pub(crate) mod codec;
pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod names;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod snapshot;
