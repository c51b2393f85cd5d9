//! Owns how durations and sizes are read from a configuration: as text that a person writes. For crates of the workspace.
//! Must not know settings, or what is too long or too large for them.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Deserializer, Error, Visitor};

/// A duration with its unit, for example `"100ms"` or `"1m 30s"`. A bare number is refused: it has no unit.
///
/// # Errors
/// It is none.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration_such_as(deserializer, "\"100ms\"")
}

/// The same for a setting that may be left out.
pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// A duration with its unit. `example` is what an error says may be there.
///
/// # Errors
/// It is none.
pub fn duration_such_as<'de, D: Deserializer<'de>>(
    deserializer: D,
    example: &'static str,
) -> Result<Duration, D::Error> {
    struct Text(&'static str);

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration with its unit, such as \"100ms\" or \"5s\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            duration_of(text, self.0)
        }
    }

    deserializer.deserialize_any(Text(example))
}

/// The duration of a text. `example` is what an error says may be there.
///
/// # Errors
/// It is none.
pub fn duration_of<E: Error>(text: &str, example: &str) -> Result<Duration, E> {
    humantime::parse_duration(text).map_err(|error| E::custom(format!("{error}; write for example {example}")))
}

/// A number of bytes, or a size with its unit, for example `"32MiB"`.
///
/// # Errors
/// It is none.
pub fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Size;

    impl Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, or a size such as \"32MiB\"")
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
            u64::try_from(bytes).map_err(|_| E::custom("it is below 0; write for example \"32MiB\""))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            let size = text.parse::<ByteSize>();
            let size = size.map_err(|error| E::custom(format!("{error}; write for example \"32MiB\"")))?;
            Ok(size.as_u64())
        }
    }

    deserializer.deserialize_any(Size)
}

/// The same for bytes in memory.
pub(crate) fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    usize::try_from(bytes(deserializer)?).map_err(D::Error::custom)
}
