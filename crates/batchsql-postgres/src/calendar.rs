//! Owns dates and timestamps that are sent as text: ISO 8601, RFC 3339, what the server itself writes (`+00`, `BC`), and its
//! infinities, for which the calendar types have no value.
//! Must not know columns or statements.

use batchsql_core::{Date, Time, Timestamp, TimestampTz};

use crate::wire::Wire;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL's calendar starts.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
pub(crate) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// Whether the server, too, reads a timestamp that [`Calendar::read`] reads.
pub(crate) fn is_read_alike(text: &str, wire: Wire) -> bool {
    has_plain_letters(text) && (wire != Wire::TimestampTz || has_near_zone(text))
}

/// Without the lower-case letters of ISO 8601, of which the server knows a part.
fn has_plain_letters(text: &str) -> bool {
    text.ends_with("infinity") || !text.contains(['t', 'z'])
}

/// Whether an offset is one that the server accepts: less than 16 hours.
fn has_near_zone(text: &str) -> bool {
    let hours = text.len().checked_sub(5).and_then(|start| text.get(start..start + 2));
    text.ends_with('Z') || text.ends_with("infinity") || hours.is_some_and(|hours| hours < "15")
}

/// A text as a date or timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calendar {
    /// `-infinity`: before every other value.
    Before,
    /// `infinity`: after every other value.
    After,
    /// Since 1970.
    Days(i32),
    /// Since 1970.
    Micros(i64),
}

impl Calendar {
    /// As [`read`](Self::read), and the other texts with the same meaning in every session that the server accepts: years
    /// `BC`, times without seconds, and a space before an offset, which has hours, minutes or seconds (`+00`, `-0330`,
    /// `+00:19:32`).
    pub(crate) fn read_as_server(text: &str, wire: Wire) -> Option<Self> {
        Self::read(text, wire).or_else(|| spelled(text, wire))
    }

    /// `None` if it is none for this binary form. Only texts whose meaning does not depend on the session are accepted.
    pub(crate) fn read(text: &str, wire: Wire) -> Option<Self> {
        match (text, wire) {
            ("-infinity", _) => Some(Self::Before),
            ("infinity", _) => Some(Self::After),
            (_, Wire::Date) => text.parse().ok().map(|date: Date| Self::Days(date.days_since_epoch())),
            (_, Wire::Timestamp) => text.parse().ok().map(|at: Timestamp| Self::Micros(at.micros_since_epoch())),
            (_, Wire::TimestampTz) => text.parse().ok().map(|at: TimestampTz| Self::Micros(at.micros_since_epoch())),
            _ => None,
        }
    }

    /// Writes the binary form.
    pub(crate) fn write(self, wire: Wire, out: &mut Vec<u8>) {
        match self {
            Self::Before if wire == Wire::Date => out.extend_from_slice(&i32::MIN.to_be_bytes()),
            Self::After if wire == Wire::Date => out.extend_from_slice(&i32::MAX.to_be_bytes()),
            Self::Before => out.extend_from_slice(&i64::MIN.to_be_bytes()),
            Self::After => out.extend_from_slice(&i64::MAX.to_be_bytes()),
            Self::Days(days) => out.extend_from_slice(&(days - EPOCH_DAYS).to_be_bytes()),
            Self::Micros(micros) => out.extend_from_slice(&(micros - EPOCH_MICROS).to_be_bytes()),
        }
    }
}

/// The first day of the server's calendar: 4714-11-24 BC.
const FIRST_DAY: i64 = -2_440_588;

const MICROS_PER_DAY: i64 = 86_400_000_000;

fn spelled(text: &str, wire: Wire) -> Option<Calendar> {
    let (text, is_before_christ) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let day = day(text.get(..10)?, is_before_christ)?;
    let rest = &text[10..];
    if wire == Wire::Date {
        let is_of_calendar = rest.is_empty() && day >= FIRST_DAY;
        return is_of_calendar.then(|| i32::try_from(day).ok().map(Calendar::Days))?;
    }
    let rest = rest.strip_prefix(['T', ' '])?;
    let (clock, offset) = match wire {
        Wire::Timestamp => (rest, 0),
        _ => match rest.strip_suffix('Z') {
            Some(clock) => (clock, 0),
            None => {
                let (clock, zone) = rest.split_at(rest.find(['+', '-'])?);
                (clock.strip_suffix(' ').unwrap_or(clock), offset(zone)?)
            }
        },
    };
    let seconds = if clock.len() == 5 { format!("{clock}:00").parse() } else { clock.parse() };
    let of_day = seconds.ok().map(|time: Time| time.micros_since_midnight())?;
    let micros = day * MICROS_PER_DAY + of_day - offset * 1_000_000;
    (micros >= FIRST_DAY * MICROS_PER_DAY).then_some(Calendar::Micros(micros))
}

/// The number of a text of `digits` digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let is_plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}

/// Days since 1970 of `YYYY-MM-DD`.
fn day(text: &str, is_before_christ: bool) -> Option<i64> {
    if !is_before_christ {
        return text.parse().ok().map(|date: Date| date.days_since_epoch().into());
    }
    let (year, month_and_day) = (number(text.get(..4)?, 4).filter(|year| *year > 0)?, text.get(4..)?);
    // The calendar repeats every 400 years. There is no year 0.
    let shift = 400 * ((year + 399) / 400 + 1);
    let later = 1 - year + shift;
    let date: Date = format!("{later:04}{month_and_day}").parse().ok()?;
    Some(i64::from(date.days_since_epoch()) - shift / 400 * 146_097)
}

/// Seconds to the east, of less than 16 hours: `+02`, `+0230`, `+02:30`, `+02:30:15`.
fn offset(zone: &str) -> Option<i64> {
    let digits = zone.get(1..)?;
    let parts: Vec<&str> = match digits.len() {
        4 => vec![digits.get(..2)?, digits.get(2..)?],
        _ => digits.split(':').collect(),
    };
    let mut seconds = 0;
    for (place, part) in parts.iter().enumerate() {
        let (most, unit) = *[(15, 3_600), (59, 60), (59, 1)].get(place)?;
        seconds += unit * number(part, 2).filter(|number| *number <= most)?;
    }
    Some(if zone.starts_with('-') { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_spellings_of_an_instant_are_read() {
        let micros = |text| match Calendar::read_as_server(text, Wire::TimestampTz) {
            Some(Calendar::Micros(micros)) => micros,
            other => panic!("{text}: {other:?}"),
        };
        let expected = micros("2024-01-01T00:00:00Z");
        for text in [
            "2024-01-01 00:00:00+00",
            "2024-01-01 00:00:00 +00",
            "2024-01-01 00:00Z",
            "2024-01-01T02:00:00.000+0200",
            "2023-12-31 20:30-03:30",
            "2024-01-01 00:19:32+00:19:32",
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
    }

    #[test]
    fn what_depends_on_the_session_or_is_not_exact_is_not_read() {
        let check = |wire, texts: &[&str]| {
            for text in texts {
                assert_eq!(Calendar::read_as_server(text, wire), None, "{text}");
            }
        };
        check(
            Wire::TimestampTz,
            &[
                "2024-01-01 00:00:00",
                "2024-01-01",
                "2024-01-01 00:00:00 CET",
                "2024-01-01 00:00:00 Europe/Berlin",
                "01.01.2024 00:00:00+00",
                "2024-01-01 00:00:00+16",
                "2024-01-01 00:00:00+2",
                "2024-01-01 00:00:00+200",
                "2024-01-01 00:00:00+€1",
                "2024-01-01 00:00:00+1é1",
                "2024-01-01 00:00:00+00:60",
                "2024-01-01 00:00:00.1234567+00",
                "2024-01-01 00:00:00+00:00:00:00",
                "2024-02-30 00:00:00+00",
                "4714-11-23 23:59:59+00 BC",
                "0000-01-01 00:00:00+00 BC",
                "２024-01-01 00+00",
                "",
                "+00",
                " BC",
            ],
        );
        check(Wire::Timestamp, &["2024-01-01 00:00:00+00", "2024-01-01", "0001-02-29 12:00:00+00 BC"]);
        check(Wire::Date, &["2024-01-01 12:00", "4714-11-23 BC", "0002-02-29 BC", "0000-01-01", "31.01.2026"]);
    }
}
