//! Owns the text of values that no column type holds, for a person to correct: in full, so read again it is refused or right.
//! Must not know columns or rows.

use std::fmt::Write;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_schema::{DataType, TimeUnit};

const NANOS_PER_DAY: i128 = 86_400 * 1_000_000_000;

/// The text of a date, a time of day or a timestamp outside of what column types have, in their form: ISO 8601, with nanoseconds.
/// `None` for values of other types.
pub(crate) fn refused_text(array: &dyn Array, row: usize) -> Option<String> {
    let mut out = String::new();
    match array.data_type() {
        DataType::Date32 => push_date(array.as_primitive::<Date32Type>().value(row).into(), &mut out),
        DataType::Date64 => {
            push_moment(i128::from(array.as_primitive::<Date64Type>().value(row)) * 1_000_000, &mut out);
        }
        DataType::Time32(unit) => {
            let value = match unit {
                TimeUnit::Second => array.as_primitive::<Time32SecondType>().value(row),
                _ => array.as_primitive::<Time32MillisecondType>().value(row),
            };
            push_time(nanos(value.into(), *unit), &mut out);
        }
        DataType::Time64(unit) => {
            let value = match unit {
                TimeUnit::Microsecond => array.as_primitive::<Time64MicrosecondType>().value(row),
                _ => array.as_primitive::<Time64NanosecondType>().value(row),
            };
            push_time(nanos(value, *unit), &mut out);
        }
        DataType::Timestamp(unit, zone) => {
            let value = match unit {
                TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row),
                TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row),
                TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
                TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row),
            };
            push_moment(nanos(value, *unit), &mut out);
            out.push_str(if zone.is_some() { "Z" } else { "" });
        }
        _ => return None,
    }
    Some(out)
}

fn nanos(value: i64, unit: TimeUnit) -> i128 {
    let nanos = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    i128::from(value) * nanos
}

fn push_moment(nanos: i128, out: &mut String) {
    push_date(nanos.div_euclid(NANOS_PER_DAY), out);
    out.push('T');
    push_time(nanos.rem_euclid(NANOS_PER_DAY), out);
}

/// One outside of the day has hours below 0, or of 24 and more.
fn push_time(nanos: i128, out: &mut String) {
    let (sign, seconds) = (if nanos < 0 { "-" } else { "" }, nanos.abs() / 1_000_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = nanos.abs() % 1_000_000_000;
    write!(out, "{sign}{hours:02}:{minutes:02}:{seconds:02}.{fraction:09}").expect("writing to a String cannot fail");
}

/// In the proleptic Gregorian calendar; a year outside of 0 to 9999 has a sign, as in ISO 8601.
fn push_date(days: i128, out: &mut String) {
    // Years that begin in March, in eras of 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i128::from(month <= 2);
    match year {
        0..=9999 => write!(out, "{year:04}-{month:02}-{day:02}"),
        _ => write!(out, "{year:+05}-{month:02}-{day:02}"),
    }
    .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, Date32Array, Date64Array, Time32SecondArray, Time64NanosecondArray, TimestampNanosecondArray,
        TimestampSecondArray,
    };

    use super::*;

    #[test]
    fn values_are_shown_in_full() {
        let check = |array: ArrayRef, text: &str| assert_eq!(refused_text(&array, 0).unwrap(), text);
        check(Arc::new(TimestampNanosecondArray::from(vec![1])), "1970-01-01T00:00:00.000000001");
        check(Arc::new(TimestampNanosecondArray::from(vec![-1])), "1969-12-31T23:59:59.999999999");
        let tz = TimestampNanosecondArray::from(vec![951_782_400_000_000_001]).with_timezone("+02:00");
        check(Arc::new(tz), "2000-02-29T00:00:00.000000001Z");
        check(Arc::new(TimestampSecondArray::from(vec![253_402_300_800])), "+10000-01-01T00:00:00.000000000");
        check(Arc::new(TimestampSecondArray::from(vec![i64::MIN])), "-292277022657-01-27T08:29:52.000000000");
        check(Arc::new(Date32Array::from(vec![i32::MAX])), "+5881580-07-11");
        check(Arc::new(Date32Array::from(vec![-719_529])), "-0001-12-31");
        check(Arc::new(Date32Array::from(vec![-719_528])), "0000-01-01");
        check(Arc::new(Date64Array::from(vec![1])), "1970-01-01T00:00:00.001000000");
        check(Arc::new(Time64NanosecondArray::from(vec![1_001])), "00:00:00.000001001");
        check(Arc::new(Time32SecondArray::from(vec![86_400])), "24:00:00.000000000");
        check(Arc::new(Time32SecondArray::from(vec![-1])), "-00:00:01.000000000");
    }
}
