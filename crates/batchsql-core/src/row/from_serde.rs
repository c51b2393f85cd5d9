//! Owns rows that are made from `serde` values: which field is which column, and what is missing.
//! Must not know how a field becomes a value, or batches.

use serde::ser::{Impossible, Serialize, SerializeMap, SerializeStruct, Serializer};

use crate::model::column::Column;
use crate::model::schema::Schema;
use crate::model::value::Value;
use crate::row::dynamic::{DynRow, RowBuilder};
use crate::row::error::RowError;
use crate::row::field_rules::{FieldRules, MissingFields, UnknownFields};
use crate::row::serde_field::{NoRow, value_of};

impl Schema {
    /// Makes a row of any `serde` value that is a struct or a map: of your own types, `serde_json::Value`,
    /// `serde_json::Map`, or a `HashMap`. Each field is the column of the same name (what `#[serde(rename)]` says);
    /// fields that are not columns are refused, and nullable columns without a field are left out.
    ///
    /// Only what loses nothing is converted:
    ///
    /// | field | column types |
    /// |---|---|
    /// | integer | integers, decimals and floats that hold it exactly |
    /// | float | floats with the same number or text; integers if it is whole; decimals if it has at most 15 digits |
    /// | `RawValue` of `serde_json` | as what its text is; a number has all of its digits: for decimals, and for integers of any size |
    /// | text | text; decimal, UUID, date, time, timestamp (ISO 8601), timestamptz (RFC 3339); bytes from `\x00ff` |
    /// | bytes, a list of bytes | bytes |
    /// | an enum variant without fields | as text |
    /// | `None`, `()`, `null` | `NULL` in a nullable column |
    /// | anything | JSON: text is a JSON string, `null` is `NULL`; `RawValue` as it was given |
    ///
    /// ```
    /// use batchsql_core::{ColumnType, Schema, ValueRef};
    /// let orders = Schema::builder("orders")
    ///     .column("id", ColumnType::I64)
    ///     .column("total", ColumnType::Decimal)
    ///     .column("placed_at", ColumnType::TimestampTz)
    ///     .nullable("details", ColumnType::Json)
    ///     .build()?;
    /// let message: serde_json::Value = serde_json::from_str(
    ///     r#"{ "id": 7, "total": "19.90", "placed_at": "2026-01-31T12:00:00Z", "details": { "gift": true } }"#,
    /// )?;
    /// let row = orders.row_from(&message)?;
    /// assert_eq!(row.get("total"), Some(ValueRef::Decimal("19.90")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The value is not a struct or a map, has a field twice or one that is not a column, or a field does not fit its
    /// column. Errors name the column, never the value.
    pub fn row_from<T: Serialize + ?Sized>(&self, value: &T) -> Result<DynRow, RowError> {
        self.row_from_with(value, FieldRules::default())
    }

    /// As [`row_from`](Self::row_from), with rules for fields that are not columns and columns without a field.
    ///
    /// # Errors
    /// As [`row_from`](Self::row_from), by the rules.
    pub fn row_from_with<T: Serialize + ?Sized>(&self, value: &T, rules: FieldRules) -> Result<DynRow, RowError> {
        let fields = Fields { schema: self, unknown: rules.unknown, row: self.row(), next: 0, key: None };
        let row = value.serialize(fields).map_err(|error| match error {
            NoRow::Row(error) => error,
            NoRow::Serialize => RowError::not_fields(self, "its Serialize implementation reports an error"),
        })?;
        match rules.missing {
            MissingFields::LeaveOut => row.finish(),
            MissingFields::Null => row.fill_with_null().finish(),
            MissingFields::Refuse => match row.first_missing() {
                Some(column) => Err(RowError::no_field(self, column.name())),
                None => row.finish(),
            },
        }
    }
}

struct Fields<'a> {
    schema: &'a Schema,
    unknown: UnknownFields,
    row: RowBuilder,
    /// The column after the last one: fields often have the order of the columns.
    next: usize,
    /// The key of a map that waits for its value.
    key: Option<String>,
}

impl<'a> Fields<'a> {
    fn column(&mut self, name: &str) -> Result<Option<(usize, &'a Column)>, RowError> {
        let columns = self.schema.columns();
        let index = match columns.get(self.next) {
            Some(column) if column.name() == name => Some(self.next),
            _ => self.schema.column_index(name),
        };
        match (index, self.unknown) {
            (Some(index), _) => {
                self.next = index + 1;
                Ok(Some((index, &columns[index])))
            }
            (None, UnknownFields::Ignore) => Ok(None),
            (None, UnknownFields::Refuse) => Err(RowError::unknown_column(self.schema, name)),
        }
    }

    fn set<T: Serialize + ?Sized>(&mut self, name: &str, field: &T) -> Result<(), NoRow> {
        let Some((index, column)) = self.column(name)? else { return Ok(()) };
        let value: Value = value_of(self.schema, column, field)?;
        if !self.row.set_new(index, value)? {
            return Err(RowError::given_twice(self.schema, name).into());
        }
        Ok(())
    }

    fn no_fields<T>(self, what: &str) -> Result<T, NoRow> {
        Err(RowError::not_fields(self.schema, what).into())
    }
}

impl SerializeStruct for Fields<'_> {
    type Ok = RowBuilder;
    type Error = NoRow;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, field: &T) -> Result<(), NoRow> {
        self.set(name, field)
    }

    fn end(self) -> Result<RowBuilder, NoRow> {
        Ok(self.row)
    }
}

impl SerializeMap for Fields<'_> {
    type Ok = RowBuilder;
    type Error = NoRow;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoRow> {
        self.key = Some(name_of(self.schema, key)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, field: &T) -> Result<(), NoRow> {
        let name = self.key.take().ok_or(NoRow::Serialize)?;
        self.set(&name, field)
    }

    fn end(self) -> Result<RowBuilder, NoRow> {
        Ok(self.row)
    }
}

/// The key of a map as the name of a column.
fn name_of<T: Serialize + ?Sized>(schema: &Schema, key: &T) -> Result<String, RowError> {
    match serde_json::to_value(key) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        _ => Err(RowError::not_fields(schema, "it is a map with keys that are not text")),
    }
}

macro_rules! no_fields {
    ($($method:ident($($arg:ty),*) $(-> $ok:ident)? = $what:literal;)*) => {$(
        fn $method(self, $(_: $arg),*) -> Result<no_fields!(@ok $($ok)?), NoRow> {
            self.no_fields($what)
        }
    )*};
    (@ok) => { Self::Ok };
    (@ok $ok:ident) => { Self::$ok };
}

impl Serializer for Fields<'_> {
    type Ok = RowBuilder;
    type Error = NoRow;
    type SerializeSeq = Impossible<RowBuilder, NoRow>;
    type SerializeTuple = Impossible<RowBuilder, NoRow>;
    type SerializeTupleStruct = Impossible<RowBuilder, NoRow>;
    type SerializeTupleVariant = Impossible<RowBuilder, NoRow>;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<RowBuilder, NoRow>;

    no_fields! {
        serialize_bool(bool) = "it is a bool";
        serialize_i8(i8) = "it is a number";
        serialize_i16(i16) = "it is a number";
        serialize_i32(i32) = "it is a number";
        serialize_i64(i64) = "it is a number";
        serialize_i128(i128) = "it is a number";
        serialize_u8(u8) = "it is a number";
        serialize_u16(u16) = "it is a number";
        serialize_u32(u32) = "it is a number";
        serialize_u64(u64) = "it is a number";
        serialize_u128(u128) = "it is a number";
        serialize_f32(f32) = "it is a number";
        serialize_f64(f64) = "it is a number";
        serialize_char(char) = "it is text";
        serialize_str(&str) = "it is text";
        serialize_bytes(&[u8]) = "it is bytes";
        serialize_none() = "it is null";
        serialize_unit() = "it is null";
        serialize_unit_struct(&'static str) = "it has no fields";
        serialize_unit_variant(&'static str, u32, &'static str) = "it is an enum";
        serialize_seq(Option<usize>) -> SerializeSeq = "it is a list; make a row of each of its elements";
        serialize_tuple(usize) -> SerializeTuple = "it is a list";
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct = "its fields have no names";
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> SerializeTupleVariant = "it is an enum";
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> SerializeStructVariant =
            "it is an enum; #[serde(tag = \"...\")] or #[serde(untagged)] makes its fields columns";
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<RowBuilder, NoRow> {
        self.no_fields("it is an enum; #[serde(tag = \"...\")] or #[serde(untagged)] makes its fields columns")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<RowBuilder, NoRow> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<RowBuilder, NoRow> {
        value.serialize(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, NoRow> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, NoRow> {
        Ok(self)
    }
}
