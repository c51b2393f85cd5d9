//! Owns which scores a sorted set keeps: it stores doubles.
//! Must not know commands or columns.

use std::io::Write;

use batchsql_core::ValueRef;
use batchsql_core::exhaustive::Value;

/// Whether a double keeps the score. An integer must be the double. A decimal must be the number that the double's
/// shortest spelling names, as in `0.1`, which no double is. `memory` is a reused buffer.
pub(crate) fn is_kept(score: ValueRef<'_>, memory: &mut Vec<u8>) -> bool {
    // Every number of up to 53 bits, and larger ones that end in enough zero bits.
    let holds = |size: u64| size == 0 || 64 - size.leading_zeros() - size.trailing_zeros() <= f64::MANTISSA_DIGITS;
    match score.exhaustive() {
        Value::I64(v) => holds(v.unsigned_abs()),
        Value::U64(v) => holds(v),
        Value::Decimal(digits) => keeps_decimal(digits, memory),
        // The shortest spelling of an `f32` is sent, and the double that it names has the same one.
        Value::I16(_) | Value::I32(_) | Value::F32(_) | Value::F64(_) => true,
        Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::Bytes(_)
        | Value::Uuid(_)
        | Value::Json(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Timestamp(_)
        | Value::TimestampTz(_) => unreachable!("a score is a number, see `lookup::is_number`"),
    }
}

fn keeps_decimal(digits: &str, memory: &mut Vec<u8>) -> bool {
    let Ok(number) = digits.parse::<f64>() else { return false };
    if !number.is_finite() {
        return false;
    }
    // The same integer, although the shortest spelling ends in other digits.
    let is_small = number.abs() < 1e30;
    if is_small && number.fract() == 0.0 && digits.parse::<i128>().is_ok_and(|integer| integer == number as i128) {
        return true;
    }
    memory.clear();
    write!(memory, "{number:e}").expect("writing to a Vec cannot fail");
    let shortest = std::str::from_utf8(memory).expect("a number is written in ASCII");
    let (left, right) = (Digits::of(digits), Digits::of(shortest));
    left.place == right.place && left.significant.eq(right.significant)
}

/// A number other than 0 as its digits from the first to the last that is not 0, without its sign.
struct Digits<I> {
    /// The place of the first digit: 1 if it is directly before the point.
    place: i64,
    significant: I,
}

impl Digits<()> {
    fn of(text: &str) -> Digits<impl Iterator<Item = u8>> {
        let unsigned = text.trim_start_matches('-');
        let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = whole.bytes().chain(fraction.bytes());
        let zeros = digits.clone().take_while(|digit| *digit == b'0').count();
        let count = whole.len() + fraction.len() - digits.clone().rev().take_while(|digit| *digit == b'0').count();
        let place = match count {
            0 => 0,
            _ => whole.len() as i64 - zeros as i64 + exponent.parse::<i64>().unwrap_or_default(),
        };
        Digits { place, significant: digits.take(count).skip(zeros) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_keeps_integers_of_53_bits() {
        fn check(score: ValueRef<'_>, expected: bool) {
            assert_eq!(is_kept(score, &mut Vec::new()), expected, "{score:?}");
        }
        for exact in [0, 1, -1, 1 << 53, -(1 << 53), (1 << 53) + 2, i64::MIN, i64::MAX - 1023] {
            check(ValueRef::I64(exact), true);
            check(ValueRef::Decimal(&exact.to_string()), true);
            assert_eq!(exact as f64 as i128, i128::from(exact));
        }
        for rounded in [(1 << 53) + 1, -(1 << 53) - 1, i64::MAX, i64::MAX - 1] {
            check(ValueRef::I64(rounded), false);
            check(ValueRef::Decimal(&rounded.to_string()), false);
        }
        check(ValueRef::U64(1 << 63), true);
        check(ValueRef::U64(u64::MAX), false);
        check(ValueRef::F64(0.1), true);
        check(ValueRef::F32(0.1), true);
    }

    #[test]
    fn a_double_keeps_decimals_that_it_spells() {
        let huge = format!("1{}", "0".repeat(400));
        let check = |digits: &str, expected| {
            assert_eq!(is_kept(ValueRef::Decimal(digits), &mut Vec::new()), expected, "{digits}");
        };
        for kept in ["0", "-0", "0.000", "0.1", "-0.1", "007.50", "1.10000", "123456.789", "0.00012"] {
            check(kept, true);
        }
        for kept in ["100000000000000000000000", "0.30000000000000004", "1.7976931348623157"] {
            check(kept, true);
        }
        for changed in ["0.12345678901234567890", "16777216.0000000001", "0.30000000000000001", "1.00000000000000001"] {
            check(changed, false);
        }
        check("9007199254740993.0", false);
        check(&huge, false);
        check(&format!("0.{}1", "0".repeat(400)), false);
    }
}
