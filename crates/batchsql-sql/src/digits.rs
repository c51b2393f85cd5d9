//! Owns the digits of decimal numbers in text: the positions of the first and the last significant one, and whether a float
//! keeps all of them.
//! Must not know columns or types.

use std::fmt::{LowerExp, Write};
use std::str::FromStr;

/// A decimal number in text, with an exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digits<'a> {
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Digits<'a> {
    /// `None` if it is no decimal number, for example `NaN`.
    pub fn of(text: &'a str) -> Option<Self> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) if exponent.contains('_') => (mantissa, exponent.replace('_', "").parse().ok()?),
            Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
        let is_number = are_digits(whole) && are_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
        is_number.then_some(Self { whole, fraction, exponent })
    }

    /// The positions of the first and the last digit that is not 0: how many digits the number has before the point
    /// (negative: how many zeros follow it), and how many after it (negative: how many zeros are before it). `None`
    /// for 0.
    pub fn first_and_last(&self) -> Option<(i64, i64)> {
        // PostgreSQL 16 reads `1_000`.
        let count = |text: &str| text.bytes().filter(|byte| *byte != b'_').count() as i64;
        let (leading, trailing) = (['0', '_'], ['0', '_']);
        let whole = self.whole.trim_start_matches(leading);
        let fraction = self.fraction.trim_end_matches(trailing);
        let first = if whole.is_empty() {
            let rest = self.fraction.trim_start_matches(leading);
            if rest.is_empty() {
                return None;
            }
            count(rest) - count(self.fraction)
        } else {
            count(whole)
        };
        let decimals =
            if fraction.is_empty() { count(whole.trim_end_matches(trailing)) - count(whole) } else { count(fraction) };
        Some((first.saturating_add(self.exponent), decimals.saturating_sub(self.exponent)))
    }

    /// Whether both are the same number, without their signs.
    pub fn is_same_number(&self, other: &Self) -> bool {
        let places = self.first_and_last();
        let count = places.map_or(0, |(first, last)| first.saturating_add(last));
        let count = usize::try_from(count).unwrap_or_default();
        places == other.first_and_last() && self.significant().take(count).eq(other.significant().take(count))
    }

    /// The digits from the first one that is not 0.
    fn significant(&self) -> impl Iterator<Item = u8> {
        let digits = self.whole.bytes().chain(self.fraction.bytes()).filter(|byte| *byte != b'_');
        digits.skip_while(|byte| *byte == b'0')
    }
}

/// The float that a decimal number names, if the shortest spelling of the float is the same number: `0.1`. `None` for what is no
/// decimal number, and for one that no float keeps. `memory` is a reused buffer.
pub fn float_of<T: FromStr + LowerExp>(text: &str, memory: &mut String) -> Option<T> {
    let number: T = text.parse().ok()?;
    memory.clear();
    write!(memory, "{number:e}").expect("writing to a String cannot fail");
    Digits::of(text)?.is_same_number(&Digits::of(memory)?).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_the_point() {
        let check = |text: &str, expected| {
            assert_eq!(Digits::of(text).unwrap().first_and_last(), expected, "{text}");
        };
        check("0", None);
        check("-00.000", None);
        check("12345", Some((5, 0)));
        check("12300", Some((5, -2)));
        check("001.500", Some((1, 1)));
        check("0.0012", Some((-2, 4)));
        check("1.5e3", Some((4, -2)));
        check("+150E-4", Some((-1, 3)));
        check("1_000.5", Some((4, 1)));
        check("1.239e0_0", Some((1, 3)));
        check("1.239E-1_0", Some((-9, 13)));
        check("1e99999999999", Some((100_000_000_000, -99_999_999_999)));
    }

    #[test]
    fn numbers_are_equal_in_every_spelling() {
        let check = |left: &str, right: &str, expected| {
            let (left_digits, right_digits) = (Digits::of(left).unwrap(), Digits::of(right).unwrap());
            assert_eq!(left_digits.is_same_number(&right_digits), expected, "{left} {right}");
        };
        check("1500", "1.5e3", true);
        check("0.0", "0e0", true);
        check("0.00150", "1.5e-3", true);
        check("100", "1e2", true);
        check("100", "1e3", false);
        check("16777217", "1.6777216e7", false);
        check("0.1", "0.11", false);
        check("0", "1", false);
    }

    #[test]
    fn what_is_no_number_has_no_digits() {
        for text in ["", ".", "-", "NaN", "Infinity", "0x1F", "1e", "a1"] {
            assert_eq!(Digits::of(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_that_no_float_keeps_are_none() {
        let mut memory = String::new();
        for text in ["1", "-2.50", "+1.5E-3", ".5", "1.", "00100", "0e7", "0.30000000000000004", "5e-324"] {
            assert_eq!(float_of::<f64>(text, &mut memory), text.parse().ok(), "{text}");
        }
        for text in ["0.12345678901234567890", "9007199254740993", "1e400", "1e-400", "0x1p3", "NaN", "inf", ""] {
            assert_eq!(float_of::<f64>(text, &mut memory), None, "{text}");
        }
        assert_eq!(float_of::<f32>("16777217", &mut memory), None);
    }
}
