//! Owns exact decimal numbers: their text, and the number that it means.
//! Must not know other values.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// An exact decimal number of any precision, kept as text so that no digit is lost.
///
/// The accepted form is `[-]digits[.digits]`; there is no exponent, no `NaN` and no infinity.
///
/// With `serde` it is text. Integers are read too; floats are refused, because they are not exact.
///
/// ```
/// use batchsql_core::Decimal;
/// let price: Decimal = "-12345678901234567890.10".parse()?;
/// assert_eq!(price.as_str(), "-12345678901234567890.10");
/// assert!("1e5".parse::<Decimal>().is_err());
/// # Ok::<(), batchsql_core::InvalidDecimal>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal(Box<str>);

impl Decimal {
    /// From text that was checked before.
    pub(crate) fn of(digits: &str) -> Self {
        Self(digits.into())
    }

    /// The digits as they were given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not of the form `[-]digits[.digits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a decimal number: expected [-]digits[.digits]")]
pub struct InvalidDecimal;

impl FromStr for Decimal {
    type Err = InvalidDecimal;

    fn from_str(text: &str) -> Result<Self, InvalidDecimal> {
        if is_decimal(text) { Ok(Self(text.into())) } else { Err(InvalidDecimal) }
    }
}

/// Whether a text is that of a [`Decimal`].
pub(crate) fn is_decimal(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(unsigned),
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Decimal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal number as text, or an integer")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Decimal, E> {
                Ok(number.into())
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Decimal, E> {
                Ok(number.into())
            }

            fn visit_i128<E: Error>(self, number: i128) -> Result<Decimal, E> {
                Ok(number.into())
            }
        }

        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Digits)
        } else {
            deserializer.deserialize_str(Digits)
        }
    }
}

macro_rules! decimal_from_integer {
    ($($int:ty),*) => {$(
        impl From<$int> for Decimal {
            fn from(number: $int) -> Self {
                Self(number.to_string().into())
            }
        }
    )*};
}
decimal_from_integer!(i16, i32, i64, i128, u16, u32, u64, u128);

#[cfg(feature = "rust_decimal")]
impl From<rust_decimal::Decimal> for Decimal {
    fn from(number: rust_decimal::Decimal) -> Self {
        // Its Display never uses an exponent.
        Self(number.to_string().into())
    }
}

/// The number that the digits of a decimal mean: `1.5` and `01.50` are equal, and so are `0` and `-0.0`. Numbers are
/// ordered by size.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Number<'a> {
    is_negative: bool,
    /// Without leading zeros.
    whole: &'a str,
    /// Without trailing zeros.
    fraction: &'a str,
}

impl<'a> Number<'a> {
    /// The number of the digits of a [`Decimal`].
    pub(crate) fn of(digits: &'a str) -> Self {
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let is_zero = whole.is_empty() && fraction.is_empty();
        Self { is_negative: unsigned.len() < digits.len() && !is_zero, whole, fraction }
    }
}

impl Ord for Number<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        // More digits are a larger number, and digits sort as text does.
        let size = |number: &Self| (number.whole.len(), number.whole, number.fraction);
        match (self.is_negative, other.is_negative) {
            (false, false) => size(self).cmp(&size(other)),
            (true, true) => size(other).cmp(&size(self)),
            (is_negative, _) => {
                if is_negative {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
        }
    }
}

impl PartialOrd for Number<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The exact sum of the digits of two decimals, with as many digits after the point as the longer one has.
pub(crate) fn add(a: &str, b: &str) -> String {
    let parts = |digits: &str| {
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        (unsigned.len() < digits.len(), whole.to_owned(), fraction.to_owned())
    };
    let ((a_negative, a_whole, a_fraction), (b_negative, b_whole, b_fraction)) = (parts(a), parts(b));
    let scale = a_fraction.len().max(b_fraction.len());
    let width = a_whole.len().max(b_whole.len()) + 1 + scale;
    // Digits from the first to the last, without the point, all equally long.
    let aligned = |whole: &str, fraction: &str| -> Vec<u8> {
        // A width of `format!` ends at 65,535.
        let before = std::iter::repeat_n(0, width - scale - whole.len());
        let after = std::iter::repeat_n(0, scale - fraction.len());
        before.chain(whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0')).chain(after).collect()
    };
    let (a, b) = (aligned(&a_whole, &a_fraction), aligned(&b_whole, &b_fraction));
    let is_sum = a_negative == b_negative;
    let (larger, smaller, is_negative) = if is_sum || a >= b { (a, b, a_negative) } else { (b, a, b_negative) };
    let mut digits = larger;
    let mut carry = 0;
    for (digit, other) in digits.iter_mut().zip(smaller).rev() {
        let result = if is_sum { *digit + other + carry } else { *digit + 10 - other - carry };
        carry = if is_sum { result / 10 } else { 1 - result / 10 };
        *digit = result % 10;
    }
    let text: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
    let (whole, fraction) = text.split_at(width - scale);
    let whole = Some(whole.trim_start_matches('0')).filter(|whole| !whole.is_empty()).unwrap_or("0");
    let sign = if is_negative && digits.iter().any(|digit| *digit > 0) { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_accept_digits_only() {
        for good in ["0", "-0", "1.50", "123456789012345678901234567890.000000000001"] {
            assert_eq!(good.parse::<Decimal>().map(|d| d.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-", ".5", "5.", "1e3", "NaN", "+1", " 1", "1_000", "１"] {
            assert!(bad.parse::<Decimal>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn with_serde_it_is_text_and_never_a_float() {
        let price: Decimal = "19.90".parse().unwrap();
        assert_eq!(serde_json::to_string(&price).unwrap(), r#""19.90""#);
        for (text, digits) in [(r#""19.90""#, "19.90"), ("-7", "-7"), ("18446744073709551615", "18446744073709551615")]
        {
            assert_eq!(serde_json::from_str::<Decimal>(text).unwrap().as_str(), digits);
        }
        for bad in ["19.9", "true", r#""1e5""#] {
            assert!(serde_json::from_str::<Decimal>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_ordered_by_size_however_they_are_written() {
        let check = |equal: &[&[&str]]| {
            let numbers = equal.iter().enumerate().flat_map(|(size, forms)| forms.iter().map(move |form| (size, form)));
            for (size, form) in numbers.clone() {
                for (other_size, other) in numbers.clone() {
                    assert_eq!(Number::of(form).cmp(&Number::of(other)), size.cmp(&other_size), "{form} {other}");
                    assert_eq!(Number::of(form) == Number::of(other), size == other_size, "{form} {other}");
                }
            }
        };
        check(&[
            &["-100", "-0100.0"],
            &["-99.9"],
            &["-2"],
            &["-1.51"],
            &["-1.5", "-01.500"],
            &["-0.10", "-00.1"],
            &["0", "-0", "0.0", "-000.00"],
            &["0.0009"],
            &["0.01", "000.0100"],
            &["0.1"],
            &["1", "1.0", "01"],
            &["1.5", "1.50", "0001.5"],
            &["1.51"],
            &["9", "9.00"],
            &["10"],
            &["123456789012345678901234567890.1", "123456789012345678901234567890.10"],
        ]);
    }

    #[test]
    fn sums_keep_every_digit() {
        let check = |a: &str, b: &str, sum: &str| {
            assert!(add(a, b) == sum && add(b, a) == sum, "{a:.30} + {b:.30}");
        };
        check("1", "2", "3");
        check("999", "1", "1000");
        check("0.1", "0.20", "0.30");
        check("-1.5", "0.25", "-1.25");
        check("-1.5", "1.5", "0.0");
        check("-0", "-0.0", "0.0");
        check("12345678901234567890.5", "-0.50", "12345678901234567890.00");
        check("-99.99", "-0.01", "-100.00");
        check("007", "3", "10");
        let long = "9".repeat(70_000);
        check(&format!("{long}.5"), "0.5", &format!("1{}.0", "0".repeat(70_000)));
        check(&format!("0.{long}"), "1", &format!("1.{long}"));
        for a in -50_i32..50 {
            for b in -50_i32..50 {
                let text = |n: i32| format!("{}{}.{}", if n < 0 { "-" } else { "" }, n.abs() / 10, n.abs() % 10);
                assert_eq!(add(&text(a), &text(b)), text(a + b));
            }
        }
    }
}
