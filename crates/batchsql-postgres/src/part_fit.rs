//! Owns the check whether each part of a text is stored unchanged: attributes of composite types, elements of arrays, bounds of
//! ranges.
//! Must not know columns, rows or what happens to a rejected value.

use batchsql_core::ValueRef;
use batchsql_core::exhaustive::Value;
use batchsql_sql::{Digits, float_of};

use crate::digits::has_fraction_beyond;
use crate::encode::Unfit;
use crate::intervals::is_interval_kept;
use crate::list::{Elements, quoted};
use crate::part::{Part, PartLimit};
use crate::text_parts::{array, multirange, range, record};
use crate::times::{Keeps, is_element_kept};
use crate::value_fit::{check, fits};
use crate::wire::Wire;

/// Whether a value is stored unchanged in a column of a type with these parts.
pub(crate) fn check_parts(value: ValueRef<'_>, part: &Part) -> Result<(), Unfit> {
    match value.exhaustive() {
        Value::Text(text) => of_text(text, part),
        Value::Json(json) => match (part, Elements::of(json)) {
            (Part::Array(element), Some(elements)) => elements.into_iter().try_for_each(|json| match json {
                "null" => Ok(()),
                json if json.starts_with('"') => of_text(&quoted(json).ok_or(Unfit::Malformed)?, element),
                json => of_text(json, element),
            }),
            // The server refuses what is no list.
            _ => Err(Unfit::Malformed),
        },
        // Only text has parts.
        _ => Ok(()),
    }
}

fn of_text(text: &str, part: &Part) -> Result<(), Unfit> {
    match part {
        Part::Whole => Ok(()),
        Part::Limited(limit) => limited(text, *limit),
        Part::Record(attributes) => {
            let texts = record(text).filter(|texts| texts.len() == attributes.len()).ok_or(Unfit::Malformed)?;
            let given = texts.iter().zip(attributes).filter_map(|(text, part)| Some((text.as_ref()?, part)));
            given.into_iter().try_for_each(|(text, part)| of_text(text, part))
        }
        Part::Array(element) => array(text).ok_or(Unfit::Malformed)?.iter().try_for_each(|text| of_text(text, element)),
        Part::Range(bound) => range(text).ok_or(Unfit::Malformed)?.iter().try_for_each(|text| of_text(text, bound)),
        Part::Multirange(bound) => {
            let bounds = |text: &&str| range(text).ok_or(Unfit::Malformed);
            multirange(text)
                .ok_or(Unfit::Malformed)?
                .iter()
                .try_for_each(|text| bounds(text)?.iter().try_for_each(|text| of_text(text, bound)))
        }
    }
}

fn limited(text: &str, limit: PartLimit) -> Result<(), Unfit> {
    let number = text.trim();
    let kept = |is_kept: bool| if is_kept { Ok(()) } else { Err(Unfit::Rounded) };
    match limit {
        PartLimit::Value(limit) => check(ValueRef::Text(text), limit, Wire::Text, &mut String::new()),
        PartLimit::Numeric { precision, scale } => match Digits::of(number) {
            Some(digits) => fits(&digits, precision, scale),
            // `0x1F` is an integer; other texts are no finite numbers.
            None => kept(scale >= 0 || !number.contains(|c: char| c.is_ascii_digit())),
        },
        PartLimit::Real => float(number, |memory| float_of::<f32>(number, memory).is_some()),
        PartLimit::Double => float(number, |memory| float_of::<f64>(number, memory).is_some()),
        PartLimit::Interval { digits } => kept(is_interval_kept(text, digits)),
        PartLimit::Time { digits, keeps } => {
            kept(!has_fraction_beyond(text, digits) && (digits >= 6 || !text.to_ascii_lowercase().contains("now")))?;
            let is_whole = keeps.is_none_or(|keeps: Keeps| is_element_kept(text, keeps));
            if is_whole { Ok(()) } else { Err(Unfit::PartLeftOut) }
        }
    }
}

/// Whether a float keeps the digits of a text. Of other spellings only those of infinities and of NaN are known.
fn float(text: &str, is_kept: impl FnOnce(&mut String) -> bool) -> Result<(), Unfit> {
    if Digits::of(text).is_none() {
        let word = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
        return if matches!(&*word, "nan" | "inf" | "infinity") { Ok(()) } else { Err(Unfit::Malformed) };
    }
    if is_kept(&mut String::new()) { Ok(()) } else { Err(Unfit::Rounded) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value_limit::ValueLimit;

    fn of(text: &str, part: &Part) -> Result<(), Unfit> {
        check_parts(ValueRef::Text(text), part)
    }

    #[test]
    fn attributes_are_checked_one_by_one() {
        let amount = Part::Limited(PartLimit::Numeric { precision: 6, scale: 2 });
        let name = Part::Limited(PartLimit::Value(ValueLimit::Characters { most: 3 }));
        let record = Part::Record([amount, Part::Whole, name].into());
        assert_eq!(of("(1.23,1.239,abc)", &record), Ok(()));
        assert_eq!(of("( 1.23 ,1.239,)", &record), Ok(()));
        assert_eq!(of("(,,)", &record), Ok(()));
        assert_eq!(of("(1.239,,)", &record), Err(Unfit::Rounded));
        assert_eq!(of("(\"1.2\"39,,)", &record), Err(Unfit::Rounded));
        assert_eq!(of("(10000,,)", &record), Err(Unfit::OutOfRange));
        assert_eq!(of("(,,abc )", &record), Err(Unfit::SpacesCut));
        assert_eq!(of("(,,\"ab \")", &record), Ok(()));
        assert_eq!(of("(,,abcd)", &record), Err(Unfit::TooLong));
        assert_eq!(of("(1.23,)", &record), Err(Unfit::Malformed));
        let list = Part::Array(record.into());
        assert_eq!(of(r#"{"(1.23,,)",NULL}"#, &list), Ok(()));
        assert_eq!(of(r#"{"(1.23,,)","(1.239,,)"}"#, &list), Err(Unfit::Rounded));
        let json = |text| check_parts(ValueRef::Json(text), &list);
        assert_eq!(json(r#"["(1.23,\"a\",)", null]"#), Ok(()));
        assert_eq!(json(r#"["(1.239,\"a\",)"]"#), Err(Unfit::Rounded));
        assert_eq!(json(r#"["(1.2\u003339,,)"]"#), Err(Unfit::Rounded));
        assert_eq!(json("{}"), Err(Unfit::Malformed));
    }

    #[test]
    fn numbers_keep_their_digits() {
        let check = |limit, text: &str, expected| {
            assert_eq!(of(text, &Part::Limited(limit)), expected, "{text} {limit:?}");
        };
        check(PartLimit::Numeric { precision: 3, scale: -2 }, "0x7F", Err(Unfit::Rounded));
        check(PartLimit::Numeric { precision: 3, scale: 0 }, "0x7F", Ok(()));
        check(PartLimit::Numeric { precision: 3, scale: -2 }, "NaN", Ok(()));
        // PostgreSQL 16 reads such exponents.
        check(PartLimit::Numeric { precision: 6, scale: 2 }, "1.239e0_0", Err(Unfit::Rounded));
        check(PartLimit::Numeric { precision: 6, scale: 2 }, "1.239e0_1", Ok(()));
        check(PartLimit::Numeric { precision: 6, scale: 1 }, "1.239e+0_1", Err(Unfit::Rounded));
        check(PartLimit::Real, "0.1", Ok(()));
        check(PartLimit::Real, " -Infinity ", Ok(()));
        check(PartLimit::Real, "0.123456789", Err(Unfit::Rounded));
        check(PartLimit::Double, "0.123456789", Ok(()));
        check(PartLimit::Double, "0.12345678901234567890", Err(Unfit::Rounded));
        check(PartLimit::Double, "0x1p3", Err(Unfit::Malformed));
    }

    #[test]
    fn times_keep_their_digits_and_their_parts() {
        let check = |digits, keeps, text: &str, expected| {
            let limit = PartLimit::Time { digits, keeps };
            assert_eq!(of(text, &Part::Limited(limit)), expected, "{text} {limit:?}");
        };
        let stamp = Some(Keeps::DateAndTime);
        check(0, stamp, "2026-01-31 12:00:00.000", Ok(()));
        check(0, stamp, "2026-01-31 12:00:00.6", Err(Unfit::Rounded));
        check(3, stamp, "2026-01-31T12:00:00.1234", Err(Unfit::Rounded));
        check(3, stamp, "2026-01-31T12:00:00.123", Ok(()));
        check(3, stamp, "now", Err(Unfit::Rounded));
        check(6, stamp, "2026-01-31T12:00:00Z", Err(Unfit::PartLeftOut));
        check(6, Some(Keeps::Date), "2026-01-31 12:00", Err(Unfit::PartLeftOut));
        check(6, Some(Keeps::Time), "12:00:00.1234567", Err(Unfit::Rounded));
        check(6, None, "2026-01-31 12:00:00.123456+02", Ok(()));
        check(0, None, "2026-01-31 12:00:00.5+02", Err(Unfit::Rounded));
    }
}
