//! Owns the order and the sums of values: which version is newer, which value is the greatest, what counters add up to.
//! Must not know rows, columns or rules.

use std::cmp::Ordering;

use crate::model::decimal::{self, Decimal, Number};
use crate::model::value::{Value, ValueRef, one_of_equals};

/// Compares two values of one type as databases do; `NULL` is the smallest. Values without such an order are equal.
pub fn compare(a: ValueRef<'_>, b: ValueRef<'_>) -> Ordering {
    use ValueRef::{Date, Decimal, F32, F64, I16, I32, I64, Null, Time, Timestamp, TimestampTz, U64};
    match (a, b) {
        (Null, Null) => Ordering::Equal,
        (Null, _) => Ordering::Less,
        (_, Null) => Ordering::Greater,
        (I16(a), I16(b)) => a.cmp(&b),
        (I32(a), I32(b)) => a.cmp(&b),
        (I64(a), I64(b)) => a.cmp(&b),
        (U64(a), U64(b)) => a.cmp(&b),
        (F32(a), F32(b)) => one_of_equals(a.into()).total_cmp(&one_of_equals(b.into())),
        (F64(a), F64(b)) => one_of_equals(a).total_cmp(&one_of_equals(b)),
        (Decimal(a), Decimal(b)) => Number::of(a).cmp(&Number::of(b)),
        (Date(a), Date(b)) => a.cmp(&b),
        (Time(a), Time(b)) => a.cmp(&b),
        (Timestamp(a), Timestamp(b)) => a.cmp(&b),
        (TimestampTz(a), TimestampTz(b)) => a.cmp(&b),
        _ => Ordering::Equal,
    }
}

/// The exact sum of two values of one type; `NULL` counts as nothing. `None` if the type has no exact sums, or cannot
/// hold this one.
pub(crate) fn add(a: ValueRef<'_>, b: ValueRef<'_>) -> Option<Value> {
    match (a, b) {
        (ValueRef::Null, other) | (other, ValueRef::Null) => Some(other.to_value()),
        (ValueRef::I16(a), ValueRef::I16(b)) => a.checked_add(b).map(Value::I16),
        (ValueRef::I32(a), ValueRef::I32(b)) => a.checked_add(b).map(Value::I32),
        (ValueRef::I64(a), ValueRef::I64(b)) => a.checked_add(b).map(Value::I64),
        (ValueRef::U64(a), ValueRef::U64(b)) => a.checked_add(b).map(Value::U64),
        (ValueRef::Decimal(a), ValueRef::Decimal(b)) => Some(Value::Decimal(Decimal::of(&decimal::add(a, b)))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_ordered_and_null_is_the_smallest() {
        let check = |smaller, larger| {
            assert_eq!(compare(smaller, larger), Ordering::Less, "{smaller:?} {larger:?}");
            assert_eq!(compare(larger, smaller), Ordering::Greater, "{smaller:?} {larger:?}");
            assert_eq!(compare(larger, larger), Ordering::Equal, "{larger:?}");
        };
        check(ValueRef::Null, ValueRef::I64(i64::MIN));
        check(ValueRef::U64(9), ValueRef::U64(10));
        check(ValueRef::Decimal("9.5"), ValueRef::Decimal("10"));
        check(ValueRef::F64(f64::INFINITY), ValueRef::F64(f64::NAN));
        assert_eq!(compare(ValueRef::F64(0.0), ValueRef::F64(-0.0)), Ordering::Equal);
        assert_eq!(compare(ValueRef::Decimal("1.5"), ValueRef::Decimal("1.50")), Ordering::Equal);
    }

    #[test]
    fn sums_are_exact_or_there_is_none() {
        assert_eq!(add(ValueRef::I16(i16::MAX), ValueRef::I16(1)), None);
        assert_eq!(add(ValueRef::U64(u64::MAX - 1), ValueRef::U64(1)), Some(Value::U64(u64::MAX)));
        assert_eq!(add(ValueRef::Null, ValueRef::I64(3)), Some(Value::I64(3)));
        assert_eq!(add(ValueRef::Null, ValueRef::Null), Some(Value::Null));
        assert_eq!(add(ValueRef::F64(0.1), ValueRef::F64(0.2)), None);
        let sum = add(ValueRef::Decimal("0.1"), ValueRef::Decimal("0.20"));
        assert_eq!(sum, Some(Value::Decimal("0.30".parse().unwrap())));
    }
}
