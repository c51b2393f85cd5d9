//! Owns lists of scalars as columns: their JSON text, which array columns of PostgreSQL and JSON columns take.
//! Must not know rows, except for their writer.

use std::fmt::Write;

use crate::model::json::Json;
use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};
use crate::model::value::{ColumnType, Decimal, Value, ValueRef};
use crate::row::encode::Encode;
use crate::row::error::RowError;
use crate::row::key::KeyHasher;
use crate::row::writer::{RowWriter, ValueRules};

/// A scalar that may be an element of a list: `Vec<T>`, `[T]` and `[T; N]` of it are fields of derived rows, and values of
/// dynamic ones. `Option<T>` is an element that may be `NULL`. Network addresses and, with the features of these crates, the
/// types of `chrono`, `time`, `jiff`, `rust_decimal`, `bigdecimal`, `bytes`, `uuid` and `ipnetwork` are elements too.
///
/// A list has the column type json. In an array column of PostgreSQL each element becomes an element of the column's type,
/// without loss; `vector` and `halfvec` (pgvector) take lists of numbers. A JSON column takes the list as it is: times,
/// decimals, bytes and UUIDs are texts there, other numbers are numbers. A column of any other type is refused when the
/// table is prepared.
///
/// JSON has no number for NaN and infinities, so they are the texts `"NaN"`, `"Infinity"` and `"-Infinity"` in a JSON column
/// of PostgreSQL and in a field of Redis, and infinities are in one of SQLite. Databases that refuse them as numbers refuse them in
/// lists too: MySQL, MariaDB and JSON documents of Redis all of them, SQLite NaN. An array column of PostgreSQL stores the numbers.
///
/// ```
/// use batchsql_core::{ColumnType, Encode, Schema};
/// fn column_type<T: Encode>(_: &T) -> ColumnType {
///     T::TYPE
/// }
/// assert_eq!(column_type(&vec![Some(1.5_f32), None]), ColumnType::Json);
///
/// let items = Schema::builder("items").column("tags", ColumnType::Json).build()?;
/// let row = items.row().set("tags", vec!["new", "gift"])?.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "a list of `{Self}` cannot be a column of a row",
    note = "elements are scalars, or Option of them; for other lists use #[row(json)], and for bytes Vec<u8>"
)]
pub trait ArrayElement {
    /// Appends the element as JSON.
    fn push_json(&self, out: &mut String);

    /// What a database with these rules cannot hold in it.
    fn refused(&self, rules: ValueRules) -> Option<&'static str> {
        let _ = rules;
        None
    }
}

macro_rules! numbers {
    ($($rust:ty)*) => {$(
        impl ArrayElement for $rust {
            fn push_json(&self, out: &mut String) {
                write!(out, "{self}").expect("writing to a String cannot fail");
            }
        }
    )*};
}
numbers!(bool i8 i16 u16 i32 u32 i64 u64);

macro_rules! floats {
    ($($rust:ty)*) => {$(
        impl ArrayElement for $rust {
            fn push_json(&self, out: &mut String) {
                if self.is_finite() {
                    // The shortest digits that identify the float; JSON needs a digit after the point, or none.
                    write!(out, "{self:?}").expect("writing to a String cannot fail");
                } else {
                    // JSON has no such number.
                    let text = if self.is_nan() { "NaN" } else if *self > 0.0 { "Infinity" } else { "-Infinity" };
                    write!(out, "\"{text}\"").expect("writing to a String cannot fail");
                }
            }

            fn refused(&self, rules: ValueRules) -> Option<&'static str> {
                let is_refused = (self.is_nan() && rules.refuse_nan) || (self.is_infinite() && rules.refuse_infinity);
                is_refused.then_some("NaN or an infinite number in a list, which this database cannot hold")
            }
        }
    )*};
}
floats!(f32 f64);

/// Appends a text as JSON.
pub(crate) fn push_text(out: &mut String, text: &str) {
    let quoted = serde_json::to_string(text).expect("a text is always JSON");
    out.push_str(&quoted);
}

macro_rules! texts {
    ($($rust:ty => |$value:ident| $text:expr;)*) => {$(
        impl ArrayElement for $rust {
            fn push_json(&self, out: &mut String) {
                let $value = self;
                push_text(out, $text);
            }
        }
    )*};
}
texts! {
    str => |v| v;
    String => |v| v;
    Box<str> => |v| v;
    std::borrow::Cow<'_, str> => |v| v;
    Decimal => |v| v.as_str();
    Date => |v| &v.to_string();
    Time => |v| &v.to_string();
    Timestamp => |v| &v.to_string();
    TimestampTz => |v| &v.to_string();
    Vec<u8> => |v| &crate::model::hex::of_bytes(v);
}

#[cfg(feature = "uuid")]
impl ArrayElement for uuid::Uuid {
    fn push_json(&self, out: &mut String) {
        push_text(out, &crate::model::hex::of_uuid(self.as_bytes()));
    }
}

impl<T: ArrayElement + ?Sized> ArrayElement for &T {
    fn push_json(&self, out: &mut String) {
        (**self).push_json(out);
    }

    fn refused(&self, rules: ValueRules) -> Option<&'static str> {
        (**self).refused(rules)
    }
}

impl<T: ArrayElement> ArrayElement for Option<T> {
    fn push_json(&self, out: &mut String) {
        match self {
            Some(element) => element.push_json(out),
            None => out.push_str("null"),
        }
    }

    fn refused(&self, rules: ValueRules) -> Option<&'static str> {
        self.as_ref().and_then(|element| element.refused(rules))
    }
}

fn json<T: ArrayElement>(list: &[T]) -> String {
    let mut text = String::with_capacity(2 + 8 * list.len());
    text.push('[');
    for (index, element) in list.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        element.push_json(&mut text);
    }
    text.push(']');
    text
}

impl<T: ArrayElement> Encode for [T] {
    const TYPE: ColumnType = ColumnType::Json;

    fn variable_len(&self) -> usize {
        json(self).len()
    }

    fn hash_key(&self, hasher: &mut KeyHasher) {
        hasher.add(ValueRef::Json(&json(self)));
    }

    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        let rules = writer.rules();
        if let Some(what) = self.iter().find_map(|element| element.refused(rules)) {
            return Err(writer.refused(what));
        }
        writer.raw_json(&json(self))
    }
}

macro_rules! lists {
    ($([$($parameters:tt)*] $rust:ty;)*) => {$(
        impl<$($parameters)*> Encode for $rust {
            const TYPE: ColumnType = ColumnType::Json;

            fn variable_len(&self) -> usize {
                <[T]>::variable_len(self)
            }

            fn hash_key(&self, hasher: &mut KeyHasher) {
                <[T]>::hash_key(self, hasher);
            }

            fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
                <[T]>::encode(self, writer)
            }
        }
    )*};
}
lists! {
    [T: ArrayElement] Vec<T>;
    [T: ArrayElement] Box<[T]>;
    [T: ArrayElement, const N: usize] [T; N];
}

impl<T: ArrayElement> From<Vec<T>> for Json {
    fn from(list: Vec<T>) -> Self {
        Self::of(&json(&list))
    }
}

impl<T: ArrayElement> From<Vec<T>> for Value {
    fn from(list: Vec<T>) -> Self {
        Self::Json(list.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_element_has_its_json() {
        let check = |text: String, expected: &str| {
            assert_eq!(text, expected);
            assert!(text.parse::<Json>().is_ok(), "{text}");
        };
        check(json::<i64>(&[]), "[]");
        check(json(&[Some(i64::MIN), None]), "[-9223372036854775808,null]");
        check(json(&[u64::MAX]), "[18446744073709551615]");
        check(json(&[true, false]), "[true,false]");
        check(json(&[0.1_f32, 1e20, -0.0]), "[0.1,1e20,-0.0]");
        check(json(&[1.0_f64, 5e-324, f64::NAN, f64::NEG_INFINITY]), "[1.0,5e-324,\"NaN\",\"-Infinity\"]");
        check(json(&["a\"b", "\u{1}ü"]), "[\"a\\\"b\",\"\\u0001ü\"]");
        check(json(&["1.50".parse::<Decimal>().unwrap()]), "[\"1.50\"]");
        check(json(&[vec![0_u8, 255]]), "[\"\\\\x00ff\"]");
        check(json(&[Date::from_ymd(2026, 1, 31).unwrap()]), "[\"2026-01-31\"]");
    }

    #[test]
    fn a_list_of_bytes_is_bytes() {
        fn ty<T: Encode>(_: &T) -> ColumnType {
            T::TYPE
        }
        assert_eq!(
            (ty(&vec![1_u8]), ty(&vec![1_i16]), ty(&[1_i16; 2])),
            (ColumnType::Bytes, ColumnType::Json, ColumnType::Json)
        );
        assert_eq!(Value::from(vec![1_u8]), Value::Bytes(vec![1]));
    }
}
