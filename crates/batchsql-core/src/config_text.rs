//! Owns how durations and sizes are read from a configuration: as text that a person writes.
//! Must not know settings.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Deserializer, Error, Visitor};

/// A duration with its unit, for example `"100ms"` or `"1m 30s"`. A bare number is refused: it has no unit.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration with its unit, such as \"100ms\" or \"5s\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text).map_err(|error| E::custom(format!("{error}; write for example \"100ms\"")))
        }
    }

    deserializer.deserialize_any(Text)
}

/// The same for a setting that may be left out.
pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// A number of bytes, or a size with its unit, for example `"32MiB"`.
pub(crate) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    struct Size;

    impl Visitor<'_> for Size {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, or a size such as \"32MiB\"")
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<usize, E> {
            usize::try_from(bytes).map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<usize, E> {
            usize::try_from(bytes).map_err(E::custom)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
            let size = text.parse::<ByteSize>();
            let size = size.map_err(|error| E::custom(format!("{error}; write for example \"32MiB\"")))?;
            self.visit_u64(size.as_u64())
        }
    }

    deserializer.deserialize_any(Size)
}
