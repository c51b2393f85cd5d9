//! Owns the binary form of types that are sent as text otherwise: for COPY, which accepts no text in its binary
//! form.
//! Must not know columns or statements.
//!
//! Only the plain spelling of a value is parsed here. A batch with another spelling is sent as text, and the server
//! decides whether it is valid.

use std::net::IpAddr;

use batchsql_core::{Date, Decimal};

use crate::calendar::{Calendar, EPOCH_DAYS, is_read_alike};
use crate::encode::write_numeric;
use crate::wire::Wire;

/// A type whose plain spelling can be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed {
    Inet,
    Cidr,
    MacAddr,
    Bit,
    TimeTz,
    Interval,
    Range(Bound),
}

/// The type of the bounds of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Int4,
    Int8,
    Numeric,
    Date,
    Timestamp,
    TimestampTz,
}

impl Parsed {
    /// The type of a built-in name. `has_modifier`: a length or precision is declared.
    pub(crate) fn of(name: &str, has_modifier: bool) -> Option<Self> {
        Some(match name {
            "inet" => Self::Inet,
            "cidr" => Self::Cidr,
            "macaddr" => Self::MacAddr,
            // The server checks the length.
            "bit" | "varbit" => Self::Bit,
            // The server would round the value.
            "timetz" | "interval" if has_modifier => return None,
            "timetz" => Self::TimeTz,
            "interval" => Self::Interval,
            "int4range" => Self::Range(Bound::Int4),
            "int8range" => Self::Range(Bound::Int8),
            "numrange" => Self::Range(Bound::Numeric),
            "daterange" => Self::Range(Bound::Date),
            "tsrange" => Self::Range(Bound::Timestamp),
            "tstzrange" => Self::Range(Bound::TimestampTz),
            _ => return None,
        })
    }

    /// Writes the binary form of a text. Returns `None`, perhaps after a partial write, if the spelling is
    /// not known.
    pub(crate) fn write(self, text: &str, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Inet => address(text, false, out),
            Self::Cidr => address(text, true, out),
            Self::MacAddr => mac(text, out),
            Self::Bit => bits(text, out),
            Self::TimeTz => time_with_zone(text, out),
            Self::Interval => interval(text, out),
            Self::Range(bound) => range(text, bound, out),
        }
    }
}

/// Digits only: no sign, no space.
fn number(text: &str, most: usize) -> Option<u32> {
    let is_plain = !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Family, length of the prefix, whether it is a network, length of the address, address.
fn address(text: &str, is_network: bool, out: &mut Vec<u8>) -> Option<()> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(number(prefix, 3)?)),
        None => (text, None),
    };
    let (family, bytes) = match address.parse().ok()? {
        IpAddr::V4(address) => (2, address.octets().to_vec()),
        IpAddr::V6(address) => (3, address.octets().to_vec()),
    };
    let most = 8 * bytes.len() as u32;
    let prefix = prefix.unwrap_or(most);
    let is_set = |bit: u32| bytes[bit as usize / 8] & (0x80 >> (bit % 8)) != 0;
    if prefix > most || (is_network && (prefix..most).any(is_set)) {
        return None;
    }
    out.extend_from_slice(&[family, prefix as u8, is_network.into(), bytes.len() as u8]);
    out.extend_from_slice(&bytes);
    Some(())
}

fn mac(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    for part in text.split(':') {
        let is_hex = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        out.push(is_hex.then(|| u8::from_str_radix(part, 16).ok()).flatten()?);
    }
    (out.len() == start + 6).then_some(())
}

/// The number of bits, then the bits from the left.
fn bits(text: &str, out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(&i32::try_from(text.len()).ok()?.to_be_bytes());
    for chunk in text.as_bytes().chunks(8) {
        let mut byte = 0;
        for (index, digit) in chunk.iter().enumerate() {
            match digit {
                b'0' => {}
                b'1' => byte |= 0x80 >> index,
                _ => return None,
            }
        }
        out.push(byte);
    }
    Some(())
}

/// `hh:mm:ss` with up to six digits of a second, in microseconds.
fn clock(text: &str, most_hours: u32) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = clock.split(':');
    let mut next =
        |most: u32| parts.next().filter(|part| part.len() == 2).and_then(|part| number(part, 2)).filter(|n| *n <= most);
    let (hours, minutes, seconds) = (next(most_hours)?, next(59)?, next(59)?);
    if parts.next().is_some() {
        return None;
    }
    let micros = number(fraction, 6)? * 10_u32.pow(6 - fraction.len() as u32);
    Some(i64::from((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + i64::from(micros))
}

/// The time in microseconds, then the zone in seconds to the west.
fn time_with_zone(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (time, zone) = text.split_at(text.rfind(['+', '-'])?);
    let micros = clock(time, 23)?;
    let (hours, minutes) = zone[1..].split_once(':').unwrap_or((&zone[1..], "00"));
    let is_plain = hours.len() == 2 && minutes.len() == 2;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    if !is_plain || hours > 14 || minutes > 59 {
        return None;
    }
    let east = i32::try_from(hours * 3_600 + minutes * 60).ok()?;
    out.extend_from_slice(&micros.to_be_bytes());
    out.extend_from_slice(&(if zone.starts_with('+') { -east } else { east }).to_be_bytes());
    Some(())
}

/// `1 year 2 mons 3 days 04:05:06.7`, without signs, because their meaning depends on the session. Microseconds,
/// days, months.
fn interval(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (mut months, mut days, mut seen) = (0, 0, 0);
    let mut words = text.split(' ');
    let mut is_empty = true;
    while let Some(word) = words.next() {
        is_empty = false;
        if word.contains(':') {
            let micros = clock(word, 99)?;
            // The time comes last.
            return words.next().is_none().then(|| write_interval(micros, days, months, out));
        }
        let count = i32::try_from(number(word, 6)?).ok()?;
        let unit = match words.next()? {
            "year" | "years" => 1,
            "mon" | "mons" | "month" | "months" => 2,
            "week" | "weeks" => 4,
            "day" | "days" => 8,
            _ => return None,
        };
        match unit {
            1 => months += 12 * count,
            2 => months += count,
            4 => days += 7 * count,
            _ => days += count,
        }
        // The server accepts each unit once.
        if seen & unit != 0 {
            return None;
        }
        seen |= unit;
    }
    (!is_empty).then(|| write_interval(0, days, months, out))
}

fn write_interval(micros: i64, days: i32, months: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(&micros.to_be_bytes());
    out.extend_from_slice(&days.to_be_bytes());
    out.extend_from_slice(&months.to_be_bytes());
}

/// Flags, then each existing bound with its length.
fn range(text: &str, bound: Bound, out: &mut Vec<u8>) -> Option<()> {
    const EMPTY: u8 = 1;
    const LOWER_INCLUSIVE: u8 = 2;
    const UPPER_INCLUSIVE: u8 = 4;
    const NO_LOWER: u8 = 8;
    const NO_UPPER: u8 = 16;

    if text == "empty" {
        out.push(EMPTY);
        return Some(());
    }
    let mut flags = match text.bytes().next()? {
        b'[' => LOWER_INCLUSIVE,
        b'(' => 0,
        _ => return None,
    };
    flags |= match text.bytes().last()? {
        b']' => UPPER_INCLUSIVE,
        b')' => 0,
        _ => return None,
    };
    let (lower, upper) = text.get(1..text.len() - 1)?.split_once(',')?;
    if lower.is_empty() {
        flags = (flags | NO_LOWER) & !LOWER_INCLUSIVE;
    }
    if upper.is_empty() {
        flags = (flags | NO_UPPER) & !UPPER_INCLUSIVE;
    }
    out.push(flags);
    [lower, upper].into_iter().filter(|text| !text.is_empty()).try_for_each(|text| write_bound(text, bound, out))
}

fn write_bound(text: &str, bound: Bound, out: &mut Vec<u8>) -> Option<()> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match bound {
        Bound::Int4 if is_integer => write_sized(&text.parse::<i32>().ok()?.to_be_bytes(), out),
        Bound::Int8 if is_integer => write_sized(&text.parse::<i64>().ok()?.to_be_bytes(), out),
        Bound::Int4 | Bound::Int8 => return None,
        Bound::Numeric => {
            text.parse::<Decimal>().ok()?;
            let mut number = Vec::new();
            write_numeric(&mut number, text).ok()?;
            write_sized(&number, out);
        }
        Bound::Date => {
            let mut parts = text.split('-');
            let mut next =
                |len: usize| parts.next().filter(|part| part.len() == len).and_then(|part| number(part, len));
            let (year, month, day) = (next(4)?, next(2)?, next(2)?);
            if parts.next().is_some() {
                return None;
            }
            let date = Date::from_ymd(i32::try_from(year).ok()?, month, day)?;
            write_sized(&(date.days_since_epoch() - EPOCH_DAYS).to_be_bytes(), out);
        }
        Bound::Timestamp => write_timestamp(text, Wire::Timestamp, out)?,
        Bound::TimestampTz => write_timestamp(text, Wire::TimestampTz, out)?,
    }
    Some(())
}

/// With or without quotes, as the server shows or takes it.
fn write_timestamp(text: &str, wire: Wire, out: &mut Vec<u8>) -> Option<()> {
    let text = match text.strip_prefix('"') {
        Some(text) => text.strip_suffix('"')?,
        None => text,
    };
    let at = Calendar::read(text, wire).filter(|_| is_read_alike(text, wire))?;
    let mut bytes = Vec::new();
    at.write(wire, &mut bytes);
    write_sized(&bytes, out);
    Some(())
}

fn write_sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_spellings_are_read() {
        let check = |name: &str, read: &[&str], left: &[&str]| {
            let parsed = Parsed::of(name, false).unwrap();
            for text in read {
                assert!(parsed.write(text, &mut Vec::new()).is_some(), "{name}: {text}");
            }
            for text in left {
                assert!(parsed.write(text, &mut Vec::new()).is_none(), "{name}: {text}");
            }
        };
        check(
            "inet",
            &["10.0.0.1", "10.0.0.1/8", "::1/0"],
            &["", "10.1", "10.0.0.1/33", "10.0.0.1/+8", " ::1", "010.0.0.1"],
        );
        check("cidr", &["10.0.0.0/8", "::/0", "10.0.0.1"], &["10.0.0.1/8", "10/8"]);
        check(
            "macaddr",
            &["08:00:2b:01:02:03"],
            &["08002b:010203", "8:0:2b:1:2:3", "08:00:2b:01:02", "+8:00:2b:01:02:03"],
        );
        check("bit", &["", "101", "111100001"], &["b101", "x1F", "2"]);
        check(
            "timetz",
            &["12:00:00+02", "23:59:59.999999-11:30"],
            &["12:00+02", "12:00:00 Europe/Berlin", "24:00:00+00", "12:00:00.1234567+00", "12:00:60+00", "12:00:00"],
        );
        check(
            "interval",
            &["1 day", "1 year 2 mons 3 days 04:05:06.7", "00:00:01"],
            &[
                "",
                "-1 day",
                "1 day -02:00:00",
                "1.5 days",
                "1 fortnight",
                "1",
                "1 day 2 days",
                "P1D",
                "04:05:06 1 day",
                "1  day",
            ],
        );
        check(
            "int4range",
            &["[1,5)", "(,]", "empty", "[-3,-1]"],
            &["[1,5", "[ 1,5)", "[+1,5)", "[1,2,3]", "[1,3000000000)", ""],
        );
        check("numrange", &["[-1.50,2)", "(,0.001]"], &["[1e3,)", "[NaN,)", "[.5,1)", "[1,2"]);
        check("daterange", &["[2026-01-31,2026-02-28]"], &["[2026-02-30,)", "[today,)", "[20260131,)", "[2026-1-31,)"]);
        check(
            "tsrange",
            &["[2026-01-31 12:00:00,\"2026-02-28T00:00:00.5\"]", "(-infinity,infinity)", "(,)"],
            &[
                "[2026-01-31,)",
                "[2026-02-30 00:00:00,)",
                "[2026-01-31 12:00:00+00:00,)",
                "[\"2026-01-31 12:00:00,)",
                "[ 2026-01-31 12:00:00,)",
                "[2026-01-31 12:00:00.0000001,)",
                "[2026-01-31t12:00:00,)",
                "[now,)",
            ],
        );
        check(
            "tstzrange",
            &["[2026-01-31 12:00:00+02:00,2026-02-28T00:00:00Z]", "[\"2026-01-31 12:00:00-11:30\",)"],
            &["[2026-01-31 12:00:00,)", "[2026-01-31 12:00:00+02,)", "[2026-01-31 12:00:00+15:30,)"],
        );
    }

    #[test]
    fn what_would_be_rounded_is_left_to_the_server() {
        assert_eq!(Parsed::of("interval", true), None);
        assert_eq!(Parsed::of("timetz", true), None);
        assert_eq!(Parsed::of("bit", true), Some(Parsed::Bit));
        assert_eq!(Parsed::of("tsvector", false), None);
    }
}
