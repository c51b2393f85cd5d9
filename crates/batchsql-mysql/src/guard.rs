//! Owns the rules for values that the server would silently change, and their rejection.
//! Must not know statements, connections or which column accepts which type.

use std::ops::RangeInclusive;

use batchsql_core::exhaustive::Value;
use batchsql_core::{ColumnView, ValueRef};

use crate::doubles::are_kept;
use crate::members::Members;
use crate::wkt::ends_with_geometry;

/// Years that a YEAR column accepts, besides 0.
const YEARS: RangeInclusive<i64> = 1901..=2155;

/// What even a strict session changes without an error. Such a value is rejected before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guard {
    None,
    /// The server rounds a DECIMAL to this number of fraction digits.
    Scale(usize),
    /// A DATETIME, TIMESTAMP or TIME keeps multiples of this many microseconds.
    Micros(i64),
    /// BINARY(n) pads shorter values with zeros.
    Exactly(usize),
    /// CHAR drops trailing spaces, and cuts off white space beyond this many characters.
    NoSpaceAtEnd(usize),
    /// White space beyond this many characters is cut off.
    Chars(usize),
    /// White space beyond this many bytes is cut off, in the character set of the column.
    Octets(usize, Octets),
    /// ENUM interprets numeric text as the position of a member, and text that equals a member in its collation as
    /// that member. The declaration lists the members.
    Member(Box<str>),
    /// SET does the same for each of its members, which are separated by commas.
    Members(Members),
    /// YEAR interprets numbers below 100 as two-digit years, and cuts off fractions.
    Year,
    /// BIT stores the 64 bits of a negative number.
    NotNegative,
    /// BIT(n) as text: at most this many digits 0 and 1.
    Bits(usize),
    /// TIME as text: `[-]hhh:mm:ss`, with at most this many fractional digits. The server reads `12:30` as hours and minutes,
    /// `1230` as minutes and seconds, and rounds.
    Duration(usize),
    /// A geometry as text: its coordinates become doubles, and MariaDB ignores what follows it.
    Geometry,
}

impl Guard {
    /// The values that the server would silently change.
    pub(crate) fn refused<'a>(&'a self, values: &'a ColumnView<'_>, rows: usize) -> impl Iterator<Item = usize> + 'a {
        let rows = if *self == Self::None { 0 } else { rows };
        (0..rows).filter(|row| self.refuses(values.get(*row)))
    }

    fn refuses(&self, value: ValueRef<'_>) -> bool {
        match value.exhaustive() {
            Value::Decimal(digits) => match self {
                Self::Scale(scale) => {
                    digits.split_once('.').is_some_and(|(_, fraction)| fraction.trim_end_matches('0').len() > *scale)
                }
                _ => self.refuses_text(digits),
            },
            Value::Text(v) | Value::Json(v) => self.refuses_text(v),
            Value::Bytes(v) => matches!(self, Self::Exactly(len) if v.len() != *len),
            Value::Time(v) => self.refuses_micros(v.micros_since_midnight()),
            Value::Timestamp(v) => self.refuses_micros(v.micros_since_epoch()),
            Value::TimestampTz(v) => self.refuses_micros(v.micros_since_epoch()),
            Value::I16(v) => self.refuses_number(v.into()),
            Value::I32(v) => self.refuses_number(v.into()),
            Value::I64(v) => self.refuses_number(v),
            Value::U64(v) => self.refuses_number(i64::try_from(v).unwrap_or(i64::MAX)),
            // A column that would change these is rejected as a whole, see `storage`.
            Value::Null | Value::Bool(_) | Value::F32(_) | Value::F64(_) | Value::Uuid(_) | Value::Date(_) => false,
        }
    }

    fn refuses_micros(&self, micros: i64) -> bool {
        matches!(self, Self::Micros(unit) if micros % unit != 0)
    }

    fn refuses_number(&self, number: i64) -> bool {
        match self {
            Self::Year => number != 0 && !YEARS.contains(&number),
            Self::NotNegative => number < 0,
            _ => false,
        }
    }

    fn refuses_text(&self, text: &str) -> bool {
        match self {
            Self::NoSpaceAtEnd(max) => text.ends_with(' ') || is_cut(text, *max),
            Self::Chars(max) => is_cut(text, *max),
            Self::Octets(max, octets) => {
                text.ends_with(is_white_space) && text.len() > *max / 4 && octets.count(text) > *max
            }
            Self::Member(declared) => !is_member(declared, text),
            Self::Members(members) => {
                !text.is_empty() && !text.split(',').all(|member| is_member(members.declared(), member))
            }
            Self::Year => {
                text.len() != 4 || !text.parse().is_ok_and(|year: u16| year == 0 || YEARS.contains(&year.into()))
            }
            Self::Bits(digits) => {
                text.is_empty() || text.len() > *digits || text.bytes().any(|b| !matches!(b, b'0' | b'1'))
            }
            Self::Duration(digits) => !is_duration(text, *digits),
            Self::Geometry => !ends_with_geometry(text) || !are_kept(text),
            _ => false,
        }
    }

    /// Why this value is refused, and what to do.
    pub(crate) fn reason(&self, value: ValueRef<'_>) -> String {
        match self {
            Self::Scale(scale) => format!(
                "has more than {scale} fraction digits, which the server would round; round it, or widen the column"
            ),
            Self::Micros(_) => {
                "has finer fractions of a second than the column, which the server would round; declare the column with (6)".into()
            }
            Self::Exactly(len) => format!("is not of {len} bytes, which the server would fill with zeros; use VARBINARY"),
            Self::NoSpaceAtEnd(_) if matches!(value, ValueRef::Text(v) | ValueRef::Json(v) if v.ends_with(' ')) => {
                "ends with a space, which the server would drop on reading; trim it, or use VARCHAR".into()
            }
            Self::NoSpaceAtEnd(_) | Self::Chars(_) | Self::Octets(..) => {
                "is longer than the column, and the server would cut off the white space at its end; trim it, or widen the column".into()
            }
            Self::Members(_) => "is not a list of members of the SET, with commas between them".into(),
            Self::Year => "is not a year from 1901 to 2155, in four digits, or 0".into(),
            Self::NotNegative => "is negative, which a BIT column would store as other bits; use a signed column".into(),
            Self::Bits(digits) => format!("is not a text of 1 to {digits} digits 0 and 1"),
            Self::Duration(digits) => {
                format!("is not a time of the form [-]hhh:mm:ss with at most {digits} fractional digits")
            }
            Self::Geometry if matches!(value, ValueRef::Text(text) if !ends_with_geometry(text)) => {
                "has text behind its geometry, which MariaDB would ignore; send one geometry".into()
            }
            Self::Geometry => {
                "has a coordinate that is no decimal number that a double keeps; round it, or write it as a decimal number".into()
            }
            Self::Member(_) => "is not the name of a member of the ENUM".into(),
            Self::None => "is refused".into(),
        }
    }
}

/// The bytes that a character takes in a character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Octets {
    Utf8,
    Utf16,
    Utf32,
    /// ASCII takes one byte, anything else two.
    OneOrTwo,
    /// At least one: in sets of one byte, and in those whose characters are not counted here.
    AtLeastOne,
}

impl Octets {
    /// By the name of the character set, in lower case.
    pub(crate) fn of(character_set: &str) -> Self {
        match character_set {
            "utf8" | "utf8mb3" | "utf8mb4" => Self::Utf8,
            "ucs2" | "utf16" | "utf16le" => Self::Utf16,
            "utf32" => Self::Utf32,
            "big5" | "euckr" | "gb2312" | "gbk" => Self::OneOrTwo,
            _ => Self::AtLeastOne,
        }
    }

    /// The bytes of the text, never more than the server counts.
    fn count(self, text: &str) -> usize {
        match self {
            Self::Utf8 => text.len(),
            Self::Utf16 => 2 * text.encode_utf16().count(),
            Self::Utf32 => 4 * text.chars().count(),
            Self::OneOrTwo => text.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum(),
            Self::AtLeastOne => text.chars().count(),
        }
    }
}

/// Whether the server cuts the text to this many characters without an error, as far as its end shows it.
fn is_cut(text: &str, max: usize) -> bool {
    text.ends_with(is_white_space) && text.len() > max && text.chars().count() > max
}

/// What a strict session cuts off beyond the length of a column. It refuses wider spaces (U+00A0, U+3000) there.
fn is_white_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// `[-]hh:mm:ss[.fraction]` with up to three digits of hours. The server checks the limit, 838:59:59.
fn is_duration(text: &str, most_digits: usize) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = whole.strip_prefix('-').unwrap_or(whole).split(':').collect();
    let [hours, minutes, seconds] = *parts else { return false };
    [hours, minutes, seconds, fraction].into_iter().all(are_digits)
        && matches!(hours.len(), 2 | 3)
        && [minutes, seconds].into_iter().all(|part| part.len() == 2 && part < "60")
        && fraction.trim_end_matches('0').len() <= most_digits
}

/// Whether the declaration of an ENUM or a SET has the member.
fn is_member(declared: &str, text: &str) -> bool {
    // Servers declare a backslash or a control character in different ways, so the server checks these values.
    let is_plain = !text.contains(|c: char| c == '\\' || c.is_control());
    let quoted = text.replace('\'', "''");
    !is_plain || ['(', ','].iter().any(|before| declared.contains(&format!("{before}'{quoted}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_refuse_what_would_be_changed_and_nothing_else() {
        let check = |guard: Guard, value: ValueRef<'_>, refused| {
            assert_eq!(guard.refuses(value), refused, "{guard:?} {value:?}");
        };
        check(Guard::Scale(2), ValueRef::Decimal("-1.25"), false);
        check(Guard::Scale(2), ValueRef::Decimal("1.25000"), false);
        check(Guard::Scale(2), ValueRef::Decimal("1.251"), true);
        check(Guard::Scale(0), ValueRef::Decimal("1.0"), false);
        check(Guard::Micros(1_000), ValueRef::Time(batchsql_core::Time::MAX), true);
        check(Guard::Micros(1_000_000), ValueRef::Timestamp(batchsql_core::Timestamp::MIN), false);
        for text in ["12:00:00", "838:59:59", "-100:00:00.5", "00:00:00.500000000"] {
            check(Guard::Duration(1), ValueRef::Text(text), false);
        }
        let others =
            ["", "12:00", "1:00:00", "1 02:00:00", "1200:00:00", "12:60:00", "12:00:00.", "12:00:00.25", "--12:00:00"];
        for text in others.into_iter().chain(["120000", "12:00:00Z", " 12:00:00", "12:00:5", "+12:00:00"]) {
            check(Guard::Duration(1), ValueRef::Text(text), true);
        }
        check(Guard::Exactly(3), ValueRef::Bytes(b"abc"), false);
        check(Guard::Exactly(3), ValueRef::Bytes(b"ab"), true);
        check(Guard::NoSpaceAtEnd(3), ValueRef::Text(" a"), false);
        check(Guard::NoSpaceAtEnd(3), ValueRef::Text("a "), true);
        check(Guard::NoSpaceAtEnd(3), ValueRef::Text("aü\n"), false);
        check(Guard::NoSpaceAtEnd(3), ValueRef::Text("abc\n"), true);
        check(Guard::Chars(2), ValueRef::Text("ü "), false);
        check(Guard::Chars(2), ValueRef::Text("üü "), true);
        check(Guard::Octets(4, Octets::Utf8), ValueRef::Text("üü "), true);
        for end in ["\n", "\t", "\r", "\u{b}", "\u{c}", "\r\n", " \n"] {
            check(Guard::Chars(2), ValueRef::Text(&format!("üü{end}")), true);
            check(Guard::Octets(4, Octets::Utf8), ValueRef::Json(&format!("üü{end}")), true);
            check(Guard::Chars(4), ValueRef::Text(&format!("üü{end}")), false);
        }
        for (set, refused) in
            [("utf8mb3", true), ("latin1", false), ("gbk", true), ("utf16", true), ("utf32", true), ("ujis", false)]
        {
            check(Guard::Octets(4, Octets::of(set)), ValueRef::Text("üü\n"), refused);
        }
        let size = || Guard::Member("enum('s','10','it''s')".into());
        check(size(), ValueRef::Text("s"), false);
        check(size(), ValueRef::Text("10"), false);
        check(size(), ValueRef::Text("it's"), false);
        for other in ["1", "S", "s ", "", "it''s"] {
            check(size(), ValueRef::Text(other), true);
        }
        check(size(), ValueRef::Null, false);
        let set = || Guard::Members(Members::new("set('a','b c','1')"));
        for good in ["", "a", "b c,a", "1,a"] {
            check(set(), ValueRef::Text(good), false);
        }
        for bad in ["2", "A", "a,", "a, b c", ","] {
            check(set(), ValueRef::Text(bad), true);
        }
        for (year, refused) in
            [(0, false), (1, true), (99, true), (1900, true), (1901, false), (2155, false), (-1, true)]
        {
            check(Guard::Year, ValueRef::I32(year), refused);
        }
        for (year, refused) in
            [("2024", false), ("0000", false), ("70", true), ("2024.5", true), ("+202", true), ("", true)]
        {
            check(Guard::Year, ValueRef::Text(year), refused);
        }
        check(Guard::NotNegative, ValueRef::I64(-1), true);
        check(Guard::NotNegative, ValueRef::I64(0), false);
        for (bits, refused) in [("101", false), ("0", false), ("", true), ("1010", true), ("102", true)] {
            check(Guard::Bits(3), ValueRef::Text(bits), refused);
        }
    }
}
