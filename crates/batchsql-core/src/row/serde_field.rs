//! Owns how one field of a `serde` value becomes the value of a column.
//! Must not know the other fields.

use std::fmt;

use serde::ser::{Error, Impossible, Serialize, SerializeSeq, SerializeStruct, SerializeTuple, Serializer};

use crate::model::column::Column;
use crate::model::hex;
use crate::model::json::{Json, RAW};
use crate::model::schema::Schema;
use crate::model::value::{ColumnType, Value};
use crate::row::error::RowError;
use crate::row::exact_number::{self, NoNumber};

/// Why a value is no row.
#[derive(Debug)]
pub(crate) enum NoRow {
    Row(RowError),
    /// The value's own `Serialize` failed. Its message is not kept, because it may contain values.
    Serialize,
}

impl fmt::Display for NoRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(error) => error.fmt(f),
            Self::Serialize => f.write_str("the value could not be serialized"),
        }
    }
}

impl std::error::Error for NoRow {}

impl Error for NoRow {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Serialize
    }
}

impl From<RowError> for NoRow {
    fn from(error: RowError) -> Self {
        Self::Row(error)
    }
}

/// The value of a field for the column.
pub(crate) fn value_of<T: Serialize + ?Sized>(schema: &Schema, column: &Column, field: &T) -> Result<Value, RowError> {
    let value = match column.column_type() {
        ColumnType::Json => document(field).ok_or(NoRow::Serialize),
        _ => field.serialize(Field { schema, column, text: Text::Plain }),
    };
    value.map_err(|error| match error {
        NoRow::Row(error) => error,
        NoRow::Serialize => RowError::not_serializable(schema, column.name()),
    })
}

/// Any value as a document; `null` is `NULL`.
fn document<T: Serialize + ?Sized>(field: &T) -> Option<Value> {
    let json = Json::from_serialize(field).ok()?;
    Some(if json.as_str() == "null" { Value::Null } else { Value::Json(json) })
}

/// What `serde_json` calls a number that it keeps as text (its feature `arbitrary_precision`).
const NUMBER: &str = "$serde_json::private::Number";

/// What the text is that comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Plain,
    Number,
    Json,
}

#[derive(Clone, Copy)]
struct Field<'a> {
    schema: &'a Schema,
    column: &'a Column,
    text: Text,
}

impl Field<'_> {
    fn mismatch(self, got: &str) -> NoRow {
        RowError::type_mismatch(self.schema, self.column, got).into()
    }

    fn number(self, number: Result<Value, NoNumber>, got: ColumnType) -> Result<Value, NoRow> {
        number.map_err(|why| match why {
            NoNumber::Type => self.mismatch(got.name()),
            NoNumber::Range => {
                let what = format!("that {} cannot hold exactly", self.column.column_type());
                RowError::out_of_range(self.schema, self.column.name(), &what).into()
            }
        })
    }

    fn integer(self, number: i128) -> Result<Value, NoRow> {
        self.number(exact_number::from_integer(number, self.column.column_type()), ColumnType::I64)
    }

    fn unreadable(self, why: impl fmt::Display) -> NoRow {
        RowError::unreadable(self.schema, self.column.name(), &why).into()
    }

    fn text(self, text: &str) -> Result<Value, NoRow> {
        let ty = self.column.column_type();
        match self.text {
            Text::Plain => {}
            Text::Number => return self.number(exact_number::from_digits(text, ty), ColumnType::Decimal),
            Text::Json => return Field { text: Text::Plain, ..self }.json(text),
        }
        match ty {
            ColumnType::Text => Ok(Value::Text(text.to_owned())),
            ColumnType::Decimal => text.parse().map(Value::Decimal).map_err(|error| self.unreadable(error)),
            ColumnType::Date => text.parse().map(Value::Date).map_err(|error| self.unreadable(error)),
            ColumnType::Time => text.parse().map(Value::Time).map_err(|error| self.unreadable(error)),
            ColumnType::Timestamp => text.parse().map(Value::Timestamp).map_err(|error| self.unreadable(error)),
            ColumnType::TimestampTz => text.parse().map(Value::TimestampTz).map_err(|error| self.unreadable(error)),
            ColumnType::Uuid => {
                let id = hex::to_uuid(text).map(Value::Uuid);
                id.ok_or_else(|| self.unreadable("not a UUID: expected 32 hexadecimal digits, with hyphens or without"))
            }
            ColumnType::Bytes => {
                let bytes = hex::to_bytes(text).map(Value::Bytes);
                bytes.ok_or_else(|| self.unreadable("not bytes: expected \\x and pairs of hexadecimal digits"))
            }
            _ => Err(self.mismatch(ColumnType::Text.name())),
        }
    }
}

impl Field<'_> {
    /// A part of a document, which is given as text: numbers keep all of their digits.
    fn json(self, text: &str) -> Result<Value, NoRow> {
        let text = text.trim();
        match text.bytes().next() {
            Some(b'-' | b'0'..=b'9') => {
                let got = if text.contains(['.', 'e', 'E']) { ColumnType::F64 } else { ColumnType::I64 };
                self.number(exact_number::from_digits(text, self.column.column_type()), got)
            }
            Some(b'{') => Err(self.mismatch(OBJECT)),
            Some(b'[') if self.column.column_type() != ColumnType::Bytes => Err(self.mismatch(LIST)),
            _ => {
                // A text may have escapes that mean nothing.
                let value: serde_json::Value = serde_json::from_str(text).map_err(|_| NoRow::Serialize)?;
                value.serialize(self)
            }
        }
    }
}

macro_rules! integers {
    ($($method:ident($rust:ty))*) => {$(
        fn $method(self, number: $rust) -> Result<Value, NoRow> {
            self.integer(number.into())
        }
    )*};
}

const LIST: &str = "a list";
const OBJECT: &str = "an object";

impl<'a> Serializer for Field<'a> {
    type Ok = Value;
    type Error = NoRow;
    type SerializeSeq = Bytes<'a>;
    type SerializeTuple = Bytes<'a>;
    type SerializeTupleStruct = Impossible<Value, NoRow>;
    type SerializeTupleVariant = Impossible<Value, NoRow>;
    type SerializeMap = Impossible<Value, NoRow>;
    type SerializeStruct = Number<'a>;
    type SerializeStructVariant = Impossible<Value, NoRow>;

    integers! {
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
    }

    fn serialize_u128(self, number: u128) -> Result<Value, NoRow> {
        match i128::try_from(number) {
            Ok(number) => self.integer(number),
            Err(_) if self.column.column_type() == ColumnType::Decimal => Ok(Value::Decimal(number.into())),
            Err(_) => self.integer(i128::MAX),
        }
    }

    fn serialize_bool(self, value: bool) -> Result<Value, NoRow> {
        match self.column.column_type() {
            ColumnType::Bool => Ok(Value::Bool(value)),
            _ => Err(self.mismatch(ColumnType::Bool.name())),
        }
    }

    fn serialize_f32(self, number: f32) -> Result<Value, NoRow> {
        match self.column.column_type() {
            ColumnType::F32 => Ok(Value::F32(number)),
            // Its own text has fewer digits than that of the same `f64`.
            ColumnType::Decimal if number.is_finite() => {
                self.number(exact_number::from_digits(&number.to_string(), ColumnType::Decimal), ColumnType::F32)
            }
            _ => self.serialize_f64(number.into()),
        }
    }

    fn serialize_f64(self, number: f64) -> Result<Value, NoRow> {
        self.number(exact_number::from_float(number, self.column.column_type()), ColumnType::F64)
    }

    fn serialize_char(self, value: char) -> Result<Value, NoRow> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<Value, NoRow> {
        self.text(text)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value, NoRow> {
        match (self.column.column_type(), <[u8; 16]>::try_from(bytes)) {
            (ColumnType::Bytes, _) => Ok(Value::Bytes(bytes.to_vec())),
            (ColumnType::Uuid, Ok(id)) => Ok(Value::Uuid(id)),
            _ => Err(self.mismatch(ColumnType::Bytes.name())),
        }
    }

    fn serialize_none(self) -> Result<Value, NoRow> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, NoRow> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, NoRow> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, NoRow> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, NoRow> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Value, NoRow> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Value, NoRow> {
        Err(self.mismatch(OBJECT))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Bytes<'a>, NoRow> {
        match self.column.column_type() {
            // A hint only: nothing is allocated ahead for a wrong one.
            ColumnType::Bytes => Ok(Bytes { field: self, bytes: Vec::with_capacity(len.unwrap_or(0).min(4096)) }),
            _ => Err(self.mismatch(LIST)),
        }
    }

    fn serialize_tuple(self, len: usize) -> Result<Bytes<'a>, NoRow> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, NoRow> {
        Err(self.mismatch(LIST))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NoRow> {
        Err(self.mismatch(OBJECT))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NoRow> {
        Err(self.mismatch(OBJECT))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Number<'a>, NoRow> {
        let text = match name {
            NUMBER => Text::Number,
            RAW => Text::Json,
            _ => return Err(self.mismatch(OBJECT)),
        };
        Ok(Number { field: Field { text, ..self }, value: Value::Null })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NoRow> {
        Err(self.mismatch(OBJECT))
    }
}

/// A list of numbers below 256 for a column of bytes, which is how `serde` shows a `Vec<u8>`.
struct Bytes<'a> {
    field: Field<'a>,
    bytes: Vec<u8>,
}

impl Bytes<'_> {
    fn add<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), NoRow> {
        let number = serde_json::to_value(element).ok().and_then(|element| element.as_u64());
        let byte = number.and_then(|number| u8::try_from(number).ok());
        self.bytes.push(byte.ok_or_else(|| self.field.mismatch("a list of other things than bytes"))?);
        Ok(())
    }
}

impl SerializeSeq for Bytes<'_> {
    type Ok = Value;
    type Error = NoRow;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), NoRow> {
        self.add(element)
    }

    fn end(self) -> Result<Value, NoRow> {
        Ok(Value::Bytes(self.bytes))
    }
}

impl SerializeTuple for Bytes<'_> {
    type Ok = Value;
    type Error = NoRow;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), NoRow> {
        self.add(element)
    }

    fn end(self) -> Result<Value, NoRow> {
        Ok(Value::Bytes(self.bytes))
    }
}

/// A number, or any value, of `serde_json` that is given as text.
struct Number<'a> {
    field: Field<'a>,
    value: Value,
}

impl SerializeStruct for Number<'_> {
    type Ok = Value;
    type Error = NoRow;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, digits: &T) -> Result<(), NoRow> {
        self.value = digits.serialize(self.field)?;
        Ok(())
    }

    fn end(self) -> Result<Value, NoRow> {
        Ok(self.value)
    }
}
