//! Owns durations and sizes in a configuration, as texts that a person writes.
//! Must not know settings.

use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Deserialize, Deserializer, Error};

/// A duration with its unit: `"100ms"`, `"1m 30s"`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("{error}; write for example \"5s\"")))
}

/// A size with its unit: `"32MiB"`.
pub(crate) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let size = text.parse::<ByteSize>();
    Ok(size.map_err(|error| D::Error::custom(format!("{error}; write for example \"32MiB\"")))?.as_u64())
}

/// The same for a key that may be left out: with `default`.
pub(crate) fn optional_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    bytes(deserializer).map(Some)
}
