//! Owns dates and timestamps that are sent as text: ISO 8601, RFC 3339, and the infinities of the server, for which the
//! calendar types have no value.
//! Must not know columns or statements.

use batchsql_core::{Date, Timestamp, TimestampTz};

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
