//! Owns durations, sizes and counts in a configuration, as a person writes them, and their bounds: nothing within them overflows a
//! clock or a sum. A larger one means `without a limit`, which the bound is.
//! Must not know settings.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// 100 years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
/// 1 EiB.
const LARGEST: u64 = 1 << 60;
const MOST: usize = 1_000_000_000;

/// A duration with its unit: `"100ms"`, `"1m 30s"`; 0 as well.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration with its unit, such as \"100ms\" or \"5s\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            duration_of(text, "\"5s\"")
        }
    }

    deserializer.deserialize_any(Text)
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
    let time = humantime::parse_duration(text);
    let time = time.map_err(|error| E::custom(format!("{error}; write for example {example}")))?;
    Ok(time.min(LONGEST))
}

/// A number of bytes, or a size with its unit: `"32MiB"`; 0 as well.
pub(crate) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Size;

    impl Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, or a size such as \"32MiB\"")
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes.min(LARGEST))
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
            let bytes = u64::try_from(bytes).map_err(|_| E::custom("it is below 0; write for example \"32MiB\""))?;
            self.visit_u64(bytes)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            let size = text.parse::<ByteSize>();
            let size = size.map_err(|error| E::custom(format!("{error}; write for example \"32MiB\"")))?;
            self.visit_u64(size.as_u64())
        }
    }

    deserializer.deserialize_any(Size)
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
