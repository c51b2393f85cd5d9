//! Owns how the values of an Arrow column become values of a column type, one after the other.
//! Must not know tables or batches.

use std::fmt::Write;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use batchsql_core::exhaustive::{uuid_of_text, value_of_text};
use batchsql_core::{
    Column, ColumnType, Date, Decimal, RowError, Schema, Time, Timestamp, TimestampTz, ValueRef, ValueRules,
};

use crate::decimal;
use crate::element::{push_json, refused};
use crate::refused_text::refused_text;
use crate::types::{is_text, scalar};

/// Why a value is not one of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    Null,
    /// A number that the column type does not have.
    Inexact,
    BelowMicrosecond,
    OutsideCalendar,
    /// A date with a time of day.
    TimeOfDay,
    Unreadable,
    /// An element of a list that the database cannot hold.
    Element(&'static str),
}

impl Problem {
    /// The error of the row.
    pub(crate) fn error(self, schema: &Schema, column: &Column) -> RowError {
        let (name, ty) = (column.name(), column.column_type());
        match self {
            Self::Null => RowError::null(schema, name),
            Self::Inexact => RowError::out_of_range(schema, name, &format!("that {ty} cannot hold exactly")),
            Self::BelowMicrosecond => {
                RowError::refused_value(schema, name, "digits below a microsecond, which would be lost; round it first")
            }
            Self::OutsideCalendar => RowError::out_of_range(schema, name, "outside the years 1 to 9999, or the day"),
            Self::TimeOfDay => RowError::refused_value(schema, name, "a time of day, which a date cannot hold"),
            Self::Unreadable => RowError::unreadable(schema, name, &format!("no {ty}")),
            Self::Element(what) => RowError::refused_value(schema, name, what),
        }
    }
}

type Put<'a> = &'a mut dyn FnMut(usize, Result<ValueRef<'_>, Problem>);

macro_rules! primitives {
    ($array:ident, $put:ident, $ty:ty, |$value:ident| $result:expr) => {{
        let values = $array.as_primitive::<$ty>();
        for row in 0..values.len() {
            if values.is_null(row) {
                $put(row, Ok(ValueRef::Null));
            } else {
                let $value = values.value(row);
                $put(row, $result);
            }
        }
    }};
}

/// Calls `put` with each value, in their order. `rules` are for the elements of lists, whose text does not show whether it was a
/// number; other values are checked when they are submitted.
///
/// # Panics
/// When the type does not [fit](crate::types::fits).
pub(crate) fn each(array: &dyn Array, to: ColumnType, rules: ValueRules, put: Put<'_>) {
    let mut scratch = Scratch::default();
    match array.data_type() {
        DataType::Null => (0..array.len()).for_each(|row| put(row, Ok(ValueRef::Null))),
        DataType::Boolean => {
            let values = array.as_boolean();
            for row in 0..values.len() {
                put(row, Ok(if values.is_null(row) { ValueRef::Null } else { ValueRef::Bool(values.value(row)) }));
            }
        }
        DataType::Int8 => primitives!(array, put, Int8Type, |v| scratch.integer(v.into(), to)),
        DataType::Int16 => primitives!(array, put, Int16Type, |v| scratch.integer(v.into(), to)),
        DataType::Int32 => primitives!(array, put, Int32Type, |v| scratch.integer(v.into(), to)),
        DataType::Int64 => primitives!(array, put, Int64Type, |v| scratch.integer(v.into(), to)),
        DataType::UInt8 => primitives!(array, put, UInt8Type, |v| scratch.integer(v.into(), to)),
        DataType::UInt16 => primitives!(array, put, UInt16Type, |v| scratch.integer(v.into(), to)),
        DataType::UInt32 => primitives!(array, put, UInt32Type, |v| scratch.integer(v.into(), to)),
        DataType::UInt64 => primitives!(array, put, UInt64Type, |v| scratch.integer(v.into(), to)),
        DataType::Float16 => primitives!(array, put, Float16Type, |v| float(v.to_f64(), to)),
        DataType::Float32 => primitives!(array, put, Float32Type, |v| float(v.into(), to)),
        DataType::Float64 => primitives!(array, put, Float64Type, |v| float(v, to)),
        DataType::Decimal32(_, scale) => {
            primitives!(array, put, Decimal32Type, |v| scratch.decimal(Some(v.into()), &v, *scale, to))
        }
        DataType::Decimal64(_, scale) => {
            primitives!(array, put, Decimal64Type, |v| scratch.decimal(Some(v.into()), &v, *scale, to))
        }
        DataType::Decimal128(_, scale) => {
            primitives!(array, put, Decimal128Type, |v| scratch.decimal(Some(v), &v, *scale, to))
        }
        DataType::Decimal256(_, scale) => {
            primitives!(array, put, Decimal256Type, |v| scratch.decimal(None, &v, *scale, to))
        }
        DataType::Date32 => {
            primitives!(array, put, Date32Type, |v| date(v.into()))
        }
        DataType::Date64 => primitives!(array, put, Date64Type, |v| match v.rem_euclid(86_400_000) {
            0 => date(v / 86_400_000),
            _ => Err(Problem::TimeOfDay),
        }),
        DataType::Time32(TimeUnit::Second) => {
            primitives!(array, put, Time32SecondType, |v| time(v.into(), TimeUnit::Second))
        }
        DataType::Time32(_) => {
            primitives!(array, put, Time32MillisecondType, |v| time(v.into(), TimeUnit::Millisecond))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            primitives!(array, put, Time64MicrosecondType, |v| time(v, TimeUnit::Microsecond))
        }
        DataType::Time64(_) => primitives!(array, put, Time64NanosecondType, |v| time(v, TimeUnit::Nanosecond)),
        DataType::Timestamp(unit @ TimeUnit::Second, _) => {
            primitives!(array, put, TimestampSecondType, |v| timestamp(v, *unit, to))
        }
        DataType::Timestamp(unit @ TimeUnit::Millisecond, _) => {
            primitives!(array, put, TimestampMillisecondType, |v| timestamp(v, *unit, to))
        }
        DataType::Timestamp(unit @ TimeUnit::Microsecond, _) => {
            primitives!(array, put, TimestampMicrosecondType, |v| timestamp(v, *unit, to))
        }
        DataType::Timestamp(unit @ TimeUnit::Nanosecond, _) => {
            primitives!(array, put, TimestampNanosecondType, |v| timestamp(v, *unit, to))
        }
        from if is_text(from) => texts(array, to, put),
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            bytes(array, &|row| values.value(row), to, put);
        }
        DataType::LargeBinary => {
            let values = array.as_binary::<i64>();
            bytes(array, &|row| values.value(row), to, put);
        }
        DataType::BinaryView => {
            let values = array.as_binary_view();
            bytes(array, &|row| values.value(row), to, put);
        }
        DataType::FixedSizeBinary(_) => {
            let values = array.as_fixed_size_binary();
            bytes(array, &|row| values.value(row), to, put);
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            each_list(array, &|row| lists.value(row), rules, put);
        }
        DataType::LargeList(_) => {
            let lists = array.as_list::<i64>();
            each_list(array, &|row| lists.value(row), rules, put);
        }
        DataType::FixedSizeList(..) => {
            let lists = array.as_fixed_size_list();
            each_list(array, &|row| lists.value(row), rules, put);
        }
        other => panic!("the mapping has refused {other}"),
    }
}

/// The text of numbers.
#[derive(Default)]
struct Scratch {
    number: String,
    decimal: String,
}

impl Scratch {
    fn integer(&mut self, number: i128, to: ColumnType) -> Result<ValueRef<'_>, Problem> {
        // From 2^53 and 2^24 on, floats do not hold every integer.
        let is_exact = |number: Option<i128>, back: i128| number == Some(back);
        let value = match to {
            ColumnType::I16 => number.try_into().map(ValueRef::I16).ok(),
            ColumnType::I32 => number.try_into().map(ValueRef::I32).ok(),
            ColumnType::I64 => number.try_into().map(ValueRef::I64).ok(),
            ColumnType::U64 => number.try_into().map(ValueRef::U64).ok(),
            ColumnType::F32 => is_exact(Some(number), number as f32 as i128).then_some(ValueRef::F32(number as f32)),
            ColumnType::F64 => is_exact(Some(number), number as f64 as i128).then_some(ValueRef::F64(number as f64)),
            _ => {
                self.decimal.clear();
                write!(self.decimal, "{number}").expect("writing to a String cannot fail");
                Some(ValueRef::Decimal(&self.decimal))
            }
        };
        value.ok_or(Problem::Inexact)
    }

    /// `whole` is the number if it fits; it is asked for only where the scale is 0.
    fn decimal(
        &mut self,
        whole: Option<i128>,
        number: &dyn std::fmt::Display,
        scale: i8,
        to: ColumnType,
    ) -> Result<ValueRef<'_>, Problem> {
        if to != ColumnType::Decimal {
            return self.integer(whole.ok_or(Problem::Inexact)?, to);
        }
        self.number.clear();
        write!(self.number, "{number}").expect("writing to a String cannot fail");
        decimal::write(&self.number, scale, &mut self.decimal);
        Ok(ValueRef::Decimal(&self.decimal))
    }
}

fn float(number: f64, to: ColumnType) -> Result<ValueRef<'static>, Problem> {
    if to == ColumnType::F64 {
        return Ok(ValueRef::F64(number));
    }
    let narrow = number as f32;
    // The same number, or the same text, as for rows of JSON.
    let is_same = number.is_nan() || f64::from(narrow) == number || narrow.to_string() == number.to_string();
    if is_same { Ok(ValueRef::F32(narrow)) } else { Err(Problem::Inexact) }
}

fn date(days: i64) -> Result<ValueRef<'static>, Problem> {
    let date = i32::try_from(days).ok().and_then(Date::from_days_since_epoch);
    date.map(ValueRef::Date).ok_or(Problem::OutsideCalendar)
}

fn micros(value: i64, unit: TimeUnit) -> Result<i64, Problem> {
    match unit {
        TimeUnit::Second => value.checked_mul(1_000_000).ok_or(Problem::OutsideCalendar),
        TimeUnit::Millisecond => value.checked_mul(1_000).ok_or(Problem::OutsideCalendar),
        TimeUnit::Microsecond => Ok(value),
        TimeUnit::Nanosecond if value % 1_000 == 0 => Ok(value / 1_000),
        TimeUnit::Nanosecond => Err(Problem::BelowMicrosecond),
    }
}

fn time(value: i64, unit: TimeUnit) -> Result<ValueRef<'static>, Problem> {
    let time = Time::from_micros_since_midnight(micros(value, unit)?);
    time.map(ValueRef::Time).ok_or(Problem::OutsideCalendar)
}

fn timestamp(value: i64, unit: TimeUnit, to: ColumnType) -> Result<ValueRef<'static>, Problem> {
    let micros = micros(value, unit)?;
    let value = match to {
        ColumnType::Timestamp => Timestamp::from_micros_since_epoch(micros).map(ValueRef::Timestamp),
        _ => TimestampTz::from_micros_since_epoch(micros).map(ValueRef::TimestampTz),
    };
    value.ok_or(Problem::OutsideCalendar)
}

/// The texts of a column; `None` is `NULL`.
fn text_at<'a>(array: &'a dyn Array) -> Box<dyn Fn(usize) -> Option<&'a str> + 'a> {
    match array.data_type() {
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            Box::new(|row| values.is_valid(row).then(|| values.value(row)))
        }
        DataType::LargeUtf8 => {
            let values = array.as_string::<i64>();
            Box::new(|row| values.is_valid(row).then(|| values.value(row)))
        }
        DataType::Utf8View => {
            let values = array.as_string_view();
            Box::new(|row| values.is_valid(row).then(|| values.value(row)))
        }
        _ => {
            let dictionary = array.as_any_dictionary();
            let values = text_at(dictionary.values().as_ref());
            // Without values every key is NULL, and its number has no meaning.
            let keys = if dictionary.values().is_empty() { Vec::new() } else { dictionary.normalized_keys() };
            Box::new(move |row| match keys.get(row) {
                Some(key) if dictionary.keys().is_valid(row) => values(*key),
                _ => None,
            })
        }
    }
}

fn texts(array: &dyn Array, to: ColumnType, put: Put<'_>) {
    let text = text_at(array);
    for row in 0..array.len() {
        let Some(text) = text(row) else {
            put(row, Ok(ValueRef::Null));
            continue;
        };
        match to {
            ColumnType::Text => put(row, Ok(ValueRef::Text(text))),
            ColumnType::Decimal => {
                let is_decimal = text.parse::<Decimal>().is_ok();
                put(row, if is_decimal { Ok(ValueRef::Decimal(text)) } else { Err(Problem::Unreadable) });
            }
            ColumnType::Uuid => put(row, uuid_of_text(text).map(ValueRef::Uuid).ok_or(Problem::Unreadable)),
            other => match value_of_text(other, text) {
                Some(value) => put(row, Ok(value.as_ref())),
                None => put(row, Err(Problem::Unreadable)),
            },
        }
    }
}

fn bytes<'a>(array: &dyn Array, value: &dyn Fn(usize) -> &'a [u8], to: ColumnType, put: Put<'_>) {
    for row in 0..array.len() {
        if array.is_null(row) {
            put(row, Ok(ValueRef::Null));
        } else if to == ColumnType::Uuid {
            put(row, value(row).try_into().map(ValueRef::Uuid).map_err(|_| Problem::Unreadable));
        } else {
            put(row, Ok(ValueRef::Bytes(value(row))));
        }
    }
}

fn each_list(array: &dyn Array, list: &dyn Fn(usize) -> ArrayRef, rules: ValueRules, put: Put<'_>) {
    let mut json = String::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            put(row, Ok(ValueRef::Null));
            continue;
        }
        let elements = list(row);
        let ty = scalar(elements.data_type()).expect("lists of other values were refused");
        let mut problem = None;
        json.clear();
        json.push('[');
        each(&elements, ty, rules, &mut |index, element| {
            if index > 0 {
                json.push(',');
            }
            match element {
                Ok(element) => {
                    problem = problem.or(refused(element, rules).map(Problem::Element));
                    push_json(element, &mut json);
                }
                Err(found) => problem = problem.or(Some(found)),
            }
        });
        json.push(']');
        put(row, problem.map_or(Ok(ValueRef::Json(&json)), Err));
    }
}

/// A row as a JSON object, for people: its fields in their order, and `null` for what has no text.
pub(crate) fn row_text(batch: &arrow_array::RecordBatch, row: usize) -> String {
    let mut out = "{".to_owned();
    for (index, field) in batch.schema_ref().fields().iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_json(ValueRef::Text(field.name()), &mut out);
        out.push(':');
        push_value(&batch.column(index).slice(row, 1), &mut out);
    }
    out.push('}');
    out
}

/// Appends the only value of an array as JSON; one that no column type holds is a text, so that it can be corrected.
fn push_value(value: &ArrayRef, out: &mut String) {
    let elements = match value.data_type() {
        DataType::List(_) => Some(value.as_list::<i32>().value(0)),
        DataType::LargeList(_) => Some(value.as_list::<i64>().value(0)),
        DataType::FixedSizeList(..) => Some(value.as_fixed_size_list().value(0)),
        _ => None,
    };
    match (elements, scalar(value.data_type())) {
        (Some(elements), _) if value.is_valid(0) => {
            out.push('[');
            for element in 0..elements.len() {
                out.push_str(if element > 0 { "," } else { "" });
                push_value(&elements.slice(element, 1), out);
            }
            out.push(']');
        }
        (None, Some(ty)) => each(value, ty, ValueRules::default(), &mut |_, found| match found {
            Ok(found) => push_json(found, out),
            Err(_) => match refused_text(value, 0) {
                Some(text) => push_json(ValueRef::Text(&text), out),
                None => out.push_str("null"),
            },
        }),
        _ => out.push_str("null"),
    }
}
