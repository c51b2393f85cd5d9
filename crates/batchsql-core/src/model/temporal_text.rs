//! Owns the text of calendar values: ISO 8601 for dates, times and timestamps, RFC 3339 for instants.
//! Must not know columns, rows or databases.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// ISO 8601, for example `2026-01-31`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.ymd();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// ISO 8601 with six fractional digits, for example `23:59:59.000001`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.micros_since_midnight();
        let (seconds, micros) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{hour:02}:{minute:02}:{second:02}.{micros:06}")
    }
}

/// `2026-01-31 23:59:59.000001`; `{:#}` gives `2026-01-31T23:59:59.000001`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = self.parts();
        let separator = if f.alternate() { 'T' } else { ' ' };
        write!(f, "{date}{separator}{time}")
    }
}

/// RFC 3339 in UTC with a space, which text columns hold: `2026-01-31 23:59:59.000001+00:00`. For readers that accept
/// only `T`, `{:#}` gives `2026-01-31T23:59:59.000001Z`.
impl fmt::Display for TimestampTz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = self.parts();
        let (separator, zone) = if f.alternate() { ('T', "Z") } else { (' ', "+00:00") };
        write!(f, "{date}{separator}{time}{zone}")
    }
}

/// The text is not a calendar value of the expected form, or not in the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: expected {form}")]
pub struct InvalidCalendarText {
    what: &'static str,
    form: &'static str,
}

macro_rules! from_str {
    ($($(#[$doc:meta])* $name:ident: $parse:ident, $what:literal, $form:literal;)*) => {$(
        $(#[$doc])*
        impl FromStr for $name {
            type Err = InvalidCalendarText;

            fn from_str(text: &str) -> Result<Self, InvalidCalendarText> {
                const ERROR: InvalidCalendarText = InvalidCalendarText { what: $what, form: $form };
                $parse(text.as_bytes()).ok_or(ERROR)
            }
        }
    )*};
}

from_str! {
    /// ISO 8601: `YYYY-MM-DD`.
    Date: date, "a date of the years 1 to 9999", "YYYY-MM-DD";
    /// ISO 8601: `HH:MM:SS`, with or without a fraction. Digits below a microsecond must be zero, because nothing is
    /// rounded. A leap second (`:60`) is refused.
    Time: time, "a time with at most six fractional digits", "HH:MM:SS[.fraction]";
    /// ISO 8601: a date and a time with `T` or a space between them, without a zone.
    Timestamp: timestamp, "a timestamp without a zone, of the years 1 to 9999 and with at most six fractional digits", "YYYY-MM-DDTHH:MM:SS[.fraction]";
    /// RFC 3339: a date, `T` or a space, a time, and `Z` or the offset from UTC. A text without a zone is refused, because
    /// it is no instant.
    TimestampTz: timestamptz, "an instant of the years 1 to 9999 with at most six fractional digits", "YYYY-MM-DDTHH:MM:SS[.fraction] and Z or an offset such as +01:00 (RFC 3339)";
}

macro_rules! serde_text {
    ($($name:ident)*) => {$(
        /// The text, with `T` and `Z` where the value has them.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&format_args!("{self:#}"))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("the text of a calendar value")
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    )*};
}

serde_text!(Date Time Timestamp TimestampTz);

/// The number of `text`, if all of it is digits.
fn number(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0_u32, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn date(text: &[u8]) -> Option<Date> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *text else { return None };
    let year = i32::try_from(number(&[y0, y1, y2, y3])?).ok()?;
    Date::from_ymd(year, number(&[m0, m1])?, number(&[d0, d1])?)
}

fn time(text: &[u8]) -> Option<Time> {
    let (clock, fraction) = text.split_at_checked(8)?;
    let [h0, h1, b':', m0, m1, b':', s0, s1] = *clock else { return None };
    let micros = match fraction {
        [] => 0,
        [b'.', digits @ ..] if !digits.is_empty() => micros(digits)?,
        _ => return None,
    };
    Time::from_hms_micro(number(&[h0, h1])?, number(&[m0, m1])?, number(&[s0, s1])?, micros)
}

/// The digits after the point.
fn micros(digits: &[u8]) -> Option<u32> {
    let (exact, beyond) = digits.split_at(digits.len().min(6));
    let scale = 10_u32.pow(u32::try_from(6 - exact.len()).ok()?);
    beyond.iter().all(|byte| *byte == b'0').then(|| number(exact).map(|digits| digits * scale))?
}

fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (day, clock) = text.split_at_checked(10)?;
    let [b'T' | b't' | b' ', clock @ ..] = clock else { return None };
    Some(Timestamp::from_parts(date(day)?, time(clock)?))
}

fn timestamptz(text: &[u8]) -> Option<TimestampTz> {
    let (local, offset_minutes) = match text {
        [local @ .., b'Z' | b'z'] => (local, 0),
        [local @ .., sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (number(&[*h0, *h1])?, number(&[*m0, *m1])?);
            let minutes = (hours < 24 && minutes < 60).then(|| i64::from(hours * 60 + minutes))?;
            (local, if *sign == b'-' { -minutes } else { minutes })
        }
        _ => return None,
    };
    let local = timestamp(local)?.micros_since_epoch();
    TimestampTz::from_micros_since_epoch(local - offset_minutes * 60 * MICROS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = InvalidCalendarText> + fmt::Display>(good: &[(&str, &str)], bad: &[&str]) {
        for (text, expected) in good {
            let parsed = text.parse::<T>().unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(parsed.to_string(), *expected, "{text:?}");
            assert_eq!(
                format!("{parsed:#}").parse::<T>().unwrap().to_string(),
                *expected,
                "the alternate form of {text:?}"
            );
            assert_eq!(expected.parse::<T>().unwrap().to_string(), *expected);
        }
        for text in bad {
            let error = text.parse::<T>().err().unwrap_or_else(|| panic!("{text:?} was accepted")).to_string();
            assert!(text.is_empty() || !error.contains(text), "{error:?} has the value");
        }
    }

    #[test]
    fn with_serde_they_are_text() {
        let all = ("2026-01-31", "01:02:03.000000", "2026-01-31T01:02:03.000000", "2026-01-31T01:02:03.000000Z");
        let text = serde_json::to_string(&all).unwrap();
        let read: (Date, Time, Timestamp, TimestampTz) = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(
            serde_json::from_str::<Date>("\"2026-02-30\"").unwrap_err().to_string().contains("expected YYYY-MM-DD")
        );
    }

    #[test]
    fn dates() {
        check::<Date>(
            &[("2026-01-31", "2026-01-31"), ("0001-01-01", "0001-01-01"), ("9999-12-31", "9999-12-31")],
            &[
                "",
                "2026-02-29",
                "2026-1-31",
                "26-01-31",
                "2026-01-31 ",
                "+026-01-31",
                "0000-01-01",
                "2026/01/31",
                "２026-01",
            ],
        );
    }

    #[test]
    fn times() {
        check::<Time>(
            &[
                ("00:00:00", "00:00:00.000000"),
                ("23:59:59.9", "23:59:59.900000"),
                ("01:02:03.000004", "01:02:03.000004"),
                ("01:02:03.000004000", "01:02:03.000004"),
            ],
            &[
                "",
                "24:00:00",
                "01:02",
                "01:02:60",
                "01:02:03.",
                "01:02:03.0000041",
                "01:02:03,5",
                "1:02:03",
                "01:02:03Z",
            ],
        );
    }

    #[test]
    fn timestamps_have_no_zone() {
        check::<Timestamp>(
            &[
                ("2026-01-31T01:02:03", "2026-01-31 01:02:03.000000"),
                ("2026-01-31 01:02:03.5", "2026-01-31 01:02:03.500000"),
            ],
            &["", "2026-01-31", "2026-01-31T01:02:03Z", "2026-01-31T01:02:03+00:00", "2026-01-31_01:02:03"],
        );
    }

    #[test]
    fn instants_are_rfc_3339() {
        check::<TimestampTz>(
            &[
                // The examples of RFC 3339, 5.8, except the leap seconds.
                ("1985-04-12T23:20:50.52Z", "1985-04-12 23:20:50.520000+00:00"),
                ("1996-12-19T16:39:57-08:00", "1996-12-20 00:39:57.000000+00:00"),
                ("1937-01-01T12:00:27.87+00:20", "1937-01-01 11:40:27.870000+00:00"),
                ("2026-01-31t01:02:03z", "2026-01-31 01:02:03.000000+00:00"),
                ("2026-01-31 01:02:03-00:00", "2026-01-31 01:02:03.000000+00:00"),
                ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00.000000+00:00"),
            ],
            &[
                "",
                "2026-01-31T01:02:03",
                "2026-01-31T01:02:03+0100",
                "2026-01-31T01:02:03+24:00",
                "2026-01-31T01:02:03+01:60",
                "1990-12-31T23:59:60Z",
                // Outside the years 1 to 9999 in UTC.
                "0001-01-01T00:00:00+00:01",
                "9999-12-31T23:59:59-00:01",
            ],
        );
        let noon: TimestampTz = "2026-01-31T12:00:00+02:00".parse().unwrap();
        assert_eq!(format!("{noon:#}"), "2026-01-31T10:00:00.000000Z");
    }
}
