//! Owns the bounds of durations, sizes and counts in a configuration: nothing within them overflows a clock or a sum. A larger one
//! means `without a limit`, which the bound is.
//! Must not know settings.

use std::time::Duration;

use batchsql::config_text;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// 100 years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
/// 1 EiB.
const LARGEST: u64 = 1 << 60;
const MOST: usize = 1_000_000_000;

/// A duration with its unit: `"100ms"`, `"1m 30s"`; 0 as well.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    config_text::duration_such_as(deserializer, "\"5s\"").map(|time| time.min(LONGEST))
}

/// The same without 0.
pub(crate) fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let time = duration(deserializer)?;
    if time.is_zero() { Err(D::Error::custom("it must be longer than 0; write for example \"5s\"")) } else { Ok(time) }
}

/// The duration of a text.
///
/// # Errors
/// It is none. `example` is what may be there.
pub(crate) fn duration_of<E: Error>(text: &str, example: &str) -> Result<Duration, E> {
    config_text::duration_of(text, example).map(|time| time.min(LONGEST))
}

/// A number of bytes, or a size with its unit: `"32MiB"`; 0 as well.
pub(crate) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    config_text::bytes(deserializer).map(|bytes| bytes.min(LARGEST))
}

/// The same without 0.
pub(crate) fn some_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = bytes(deserializer)?;
    if size == 0 { Err(D::Error::custom("it must be above 0; write for example \"32MiB\"")) } else { Ok(size) }
}

/// The same for a key that may be left out: with `default`.
pub(crate) fn optional_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    some_bytes(deserializer).map(Some)
}

/// A number of things; 0 as well.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    usize::deserialize(deserializer).map(|count| count.min(MOST))
}
