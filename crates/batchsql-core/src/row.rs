//! Owns how a row gets into column buffers: the `Row` trait, the checked `RowWriter`, dynamic rows.
//! Must not know batches, the queue or databases.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::columns::{Buffer, ColumnBuffer};
use crate::error::RowError;
use crate::schema::Schema;
use crate::temporal::{Date, Time, Timestamp, TimestampTz};
use crate::value::{ColumnType, Decimal, Json, Value, ValueRef};

/// A row that can be submitted: usually `#[derive(Row)]` on a struct, or a [`DynRow`].
///
/// A hand-written implementation must write exactly one value per column, in the schema's order.
/// The pipeline calls [`write`](Row::write) under the lock of one open batch: it must not block and
/// must not submit to the same pipeline.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no row",
    note = "add #[derive(Row)] and #[row(table = \"...\")] to the struct"
)]
pub trait Row {
    /// The shape of this row.
    fn schema(&self) -> &Schema;

    /// Bytes of text, bytes, JSON and decimal digits in this row; the byte budget reserves room for
    /// them before the row is written. A row that then writes more is refused.
    fn variable_len(&self) -> usize;

    /// A hash of the key columns: equal keys must give equal hashes. Only asked where the order of
    /// equal keys matters.
    fn key_hash(&self) -> u64;

    /// Writes the values in column order.
    ///
    /// # Errors
    /// What the writer reports; the row is then not accepted.
    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError>;
}

/// A row type whose schema is known without a row: what `#[derive(Row)]` implements.
pub trait TypedRow: Row {
    /// The schema of every row of this type.
    fn type_schema() -> &'static Schema;
}

impl<R: Row + ?Sized> Row for &R {
    fn schema(&self) -> &Schema {
        (**self).schema()
    }

    fn variable_len(&self) -> usize {
        (**self).variable_len()
    }

    fn key_hash(&self) -> u64 {
        (**self).key_hash()
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        (**self).write(writer)
    }
}

/// Values that a database cannot hold and that are therefore refused at admission. A [`Sink`] states
/// its rules; the default refuses nothing.
///
/// [`Sink`]: crate::Sink
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ValueRules {
    /// Refuse text that contains a NUL character (PostgreSQL).
    pub refuse_nul_in_text: bool,
    /// Refuse `NaN` (SQLite turns it into `NULL`).
    pub refuse_nan: bool,
    /// Refuse positive and negative infinity (MySQL).
    pub refuse_infinity: bool,
    /// Refuse `u64` above `i64::MAX` (SQLite, PostgreSQL `bigint`).
    pub refuse_u64_above_i64: bool,
}

/// Writes one row into the column buffers of a batch, checking every value on the way.
pub struct RowWriter<'a> {
    schema: &'a Schema,
    columns: &'a mut [ColumnBuffer],
    rules: ValueRules,
    next: usize,
    /// Bytes of variable values written so far.
    variable: usize,
}

macro_rules! write_typed {
    ($($(#[$doc:meta])* $vis:vis $method:ident($rust:ty) => $variant:ident $(, $len:ident)?);* $(;)?) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// The next column has another type, or there is no further column.
        #[inline]
        $vis fn $method(&mut self, value: $rust) -> Result<(), RowError> {
            match self.columns.get_mut(self.next) {
                Some(ColumnBuffer { buffer: Buffer::$variant(values), validity }) => {
                    $(self.variable += value.$len();)?
                    values.push(value);
                    if let Some(validity) = validity {
                        validity.push(true);
                    }
                    self.next += 1;
                    Ok(())
                }
                _ => Err(self.mismatch(ColumnType::$variant)),
            }
        }
    )*};
}

impl<'a> RowWriter<'a> {
    pub(crate) fn new(schema: &'a Schema, columns: &'a mut [ColumnBuffer], rules: ValueRules) -> Self {
        Self { schema, columns, rules, next: 0, variable: 0 }
    }

    /// Whether every column got its value, and no more variable bytes than were reserved.
    pub(crate) fn finish(self, reserved: usize) -> Result<(), RowError> {
        match self.schema.columns().get(self.next) {
            None if self.variable > reserved => Err(RowError::understated(self.schema, reserved, self.variable)),
            None => Ok(()),
            Some(column) => Err(RowError::missing(self.schema, column.name())),
        }
    }

    write_typed! {
        /// Writes a `bool`.
        pub bool(bool) => Bool;
        /// Writes an `i16`.
        pub i16(i16) => I16;
        /// Writes an `i32`.
        pub i32(i32) => I32;
        /// Writes an `i64`.
        pub i64(i64) => I64;
        /// Writes the 16 bytes of a UUID.
        pub uuid([u8; 16]) => Uuid;
        /// Writes a date.
        pub date(Date) => Date;
        /// Writes a time of day.
        pub time(Time) => Time;
        /// Writes a timestamp without a zone.
        pub timestamp(Timestamp) => Timestamp;
        /// Writes an instant.
        pub timestamptz(TimestampTz) => TimestampTz;
        /// Writes the digits of a decimal that was checked before.
        pub(crate) raw_decimal(&str) => Decimal, len;
        /// Writes the text of a JSON document that was checked before.
        pub(crate) raw_json(&str) => Json, len;
        /// Writes bytes.
        pub bytes(&[u8]) => Bytes, len;
        /// Writes text without looking at the rules.
        pub(crate) raw_text(&str) => Text, len;
        /// Writes a `u64` without looking at the rules.
        pub(crate) raw_u64(u64) => U64;
        /// Writes an `f32` without looking at the rules.
        pub(crate) raw_f32(f32) => F32;
        /// Writes an `f64` without looking at the rules.
        pub(crate) raw_f64(f64) => F64;
    }

    /// Writes text.
    ///
    /// # Errors
    /// The next column is not text, or the database refuses the NUL character in it.
    #[inline]
    pub fn text(&mut self, value: &str) -> Result<(), RowError> {
        if self.rules.refuse_nul_in_text && value.as_bytes().contains(&0) {
            return Err(self.refused("text with a NUL character, which this database cannot hold; remove it"));
        }
        self.raw_text(value)
    }

    /// Writes a `u64`.
    ///
    /// # Errors
    /// The next column is not a `u64`, or the number is above `i64::MAX` and the database cannot
    /// hold it.
    #[inline]
    pub fn u64(&mut self, value: u64) -> Result<(), RowError> {
        if self.rules.refuse_u64_above_i64 && i64::try_from(value).is_err() {
            return Err(self.out_of_range("above i64::MAX, the largest integer of this database"));
        }
        self.raw_u64(value)
    }

    /// Writes an `f32`.
    ///
    /// # Errors
    /// The next column is not an `f32`, or the database cannot hold `NaN` or infinity.
    #[inline]
    pub fn f32(&mut self, value: f32) -> Result<(), RowError> {
        self.check_float(value.is_nan(), value.is_infinite())?;
        self.raw_f32(value)
    }

    /// Writes an `f64`.
    ///
    /// # Errors
    /// The next column is not an `f64`, or the database cannot hold `NaN` or infinity.
    #[inline]
    pub fn f64(&mut self, value: f64) -> Result<(), RowError> {
        self.check_float(value.is_nan(), value.is_infinite())?;
        self.raw_f64(value)
    }

    /// Writes a decimal.
    ///
    /// # Errors
    /// The next column is not a decimal.
    pub fn decimal(&mut self, value: &Decimal) -> Result<(), RowError> {
        self.raw_decimal(value.as_str())
    }

    /// Writes a JSON document.
    ///
    /// # Errors
    /// The next column is not JSON.
    pub fn json(&mut self, value: &Json) -> Result<(), RowError> {
        self.raw_json(value.as_str())
    }

    /// Writes `NULL`.
    ///
    /// # Errors
    /// The next column is not nullable.
    #[inline]
    pub fn null(&mut self) -> Result<(), RowError> {
        match self.columns.get_mut(self.next) {
            Some(column) if column.validity.is_some() => {
                column.push_null();
                self.next += 1;
                Ok(())
            }
            Some(_) => Err(RowError::null(self.schema, self.column_name())),
            None => Err(RowError::too_many_values(self.schema)),
        }
    }

    /// Writes a value of any type; it must be of the column's own type.
    ///
    /// # Errors
    /// As the typed methods.
    pub fn value(&mut self, value: ValueRef<'_>) -> Result<(), RowError> {
        match value {
            ValueRef::Null => self.null(),
            ValueRef::Bool(v) => self.bool(v),
            ValueRef::I16(v) => self.i16(v),
            ValueRef::I32(v) => self.i32(v),
            ValueRef::I64(v) => self.i64(v),
            ValueRef::U64(v) => self.u64(v),
            ValueRef::F32(v) => self.f32(v),
            ValueRef::F64(v) => self.f64(v),
            ValueRef::Decimal(v) => self.raw_decimal(v),
            ValueRef::Text(v) => self.text(v),
            ValueRef::Bytes(v) => self.bytes(v),
            ValueRef::Uuid(v) => self.uuid(v),
            ValueRef::Json(v) => self.raw_json(v),
            ValueRef::Date(v) => self.date(v),
            ValueRef::Time(v) => self.time(v),
            ValueRef::Timestamp(v) => self.timestamp(v),
            ValueRef::TimestampTz(v) => self.timestamptz(v),
        }
    }

    #[inline]
    fn check_float(&self, nan: bool, infinite: bool) -> Result<(), RowError> {
        if nan && self.rules.refuse_nan {
            return Err(self.refused("NaN, which this database cannot hold; send NULL instead"));
        }
        if infinite && self.rules.refuse_infinity {
            return Err(self.refused("an infinite number, which this database cannot hold"));
        }
        Ok(())
    }

    fn column_name(&self) -> &'a str {
        self.schema.columns().get(self.next).map_or("", |column| column.name())
    }

    #[cold]
    fn mismatch(&self, got: ColumnType) -> RowError {
        match self.schema.columns().get(self.next) {
            Some(column) => RowError::type_mismatch(self.schema, column, got),
            None => RowError::too_many_values(self.schema),
        }
    }

    #[cold]
    fn refused(&self, what: &str) -> RowError {
        RowError::refused_value(self.schema, self.column_name(), what)
    }

    #[cold]
    fn out_of_range(&self, what: &str) -> RowError {
        RowError::out_of_range(self.schema, self.column_name(), what)
    }
}

/// Shows the table and how far the row is, never a value.
impl fmt::Debug for RowWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, columns) = (self.schema.table(), self.next);
        f.debug_struct("RowWriter").field("table", table).field("columns_written", &columns).finish_non_exhaustive()
    }
}

/// A Rust type that fills one column of a derived row. `Option` of it is a nullable column.
///
/// | Rust type | column type |
/// |---|---|
/// | `bool` | bool |
/// | `i8`, `u8`, `i16` | i16 |
/// | `u16`, `i32` | i32 |
/// | `u32`, `i64` | i64 |
/// | `u64` | u64 |
/// | `f32`, `f64` | f32, f64 |
/// | `str`, `String`, `Box<str>`, `Arc<str>`, `Cow<str>` | text |
/// | `[u8]`, `Vec<u8>`, `Box<[u8]>` | bytes |
/// | [`Decimal`], `rust_decimal::Decimal` (feature) | decimal |
/// | [`Json`] | json |
/// | `uuid::Uuid` (feature) | uuid |
/// | [`Date`], [`Time`], [`Timestamp`], [`TimestampTz`] | date, time, timestamp, timestamptz |
/// | `chrono::NaiveDate`, `NaiveTime`, `NaiveDateTime`, `DateTime<Utc>`, `DateTime<FixedOffset>` (feature) | the same |
///
/// References to these work too. Implement it for a type of your own by calling the [`RowWriter`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot fill a column",
    note = "the docs of `Encode` list the types that can; convert the field, skip it with #[row(skip)], or implement `Encode`"
)]
pub trait Encode {
    /// The column type it maps to.
    const TYPE: ColumnType;
    /// Whether it can be `NULL`.
    const NULLABLE: bool = false;

    /// Bytes of the variable part, see [`Row::variable_len`].
    fn variable_len(&self) -> usize {
        0
    }

    /// Feeds the value to a key hash.
    fn hash_key(&self, hasher: &mut KeyHasher);

    /// Writes the value.
    ///
    /// # Errors
    /// What the writer reports.
    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError>;
}

/// Hashes the key of a row. Typed and dynamic rows with equal keys give equal hashes.
#[derive(Debug, Default)]
pub struct KeyHasher(DefaultHasher);

impl KeyHasher {
    /// Adds one key column.
    pub fn add(&mut self, value: ValueRef<'_>) {
        value.hash(&mut self.0);
    }

    /// The hash of everything added.
    pub fn finish(&self) -> u64 {
        self.0.finish()
    }
}

macro_rules! encode_fixed {
    ($($rust:ty => $variant:ident $method:ident),* $(,)?) => {$(
        impl Encode for $rust {
            const TYPE: ColumnType = ColumnType::$variant;

            fn hash_key(&self, hasher: &mut KeyHasher) {
                hasher.add(ValueRef::$variant((*self).into()));
            }

            #[inline]
            fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
                writer.$method((*self).into())
            }
        }
    )*};
}

encode_fixed! {
    bool => Bool bool,
    i8 => I16 i16,
    u8 => I16 i16,
    i16 => I16 i16,
    u16 => I32 i32,
    i32 => I32 i32,
    u32 => I64 i64,
    i64 => I64 i64,
    u64 => U64 u64,
    f32 => F32 f32,
    f64 => F64 f64,
    Date => Date date,
    Time => Time time,
    Timestamp => Timestamp timestamp,
    TimestampTz => TimestampTz timestamptz,
}

#[cfg(feature = "uuid")]
impl Encode for uuid::Uuid {
    const TYPE: ColumnType = ColumnType::Uuid;

    fn hash_key(&self, hasher: &mut KeyHasher) {
        hasher.add(ValueRef::Uuid(self.into_bytes()));
    }

    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        writer.uuid(self.into_bytes())
    }
}

macro_rules! encode_variable {
    ($($rust:ty => $variant:ident $method:ident |$value:ident| $borrow:expr),* $(,)?) => {$(
        impl Encode for $rust {
            const TYPE: ColumnType = ColumnType::$variant;

            #[inline]
            fn variable_len(&self) -> usize {
                let $value = self;
                $borrow.len()
            }

            fn hash_key(&self, hasher: &mut KeyHasher) {
                let $value = self;
                hasher.add(ValueRef::$variant($borrow));
            }

            #[inline]
            fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
                let $value = self;
                writer.$method($borrow)
            }
        }
    )*};
}

encode_variable! {
    str => Text text |v| v,
    String => Text text |v| v.as_str(),
    Box<str> => Text text |v| &**v,
    Arc<str> => Text text |v| &**v,
    Cow<'_, str> => Text text |v| &**v,
    [u8] => Bytes bytes |v| v,
    Vec<u8> => Bytes bytes |v| v.as_slice(),
    Box<[u8]> => Bytes bytes |v| &**v,
    Decimal => Decimal raw_decimal |v| v.as_str(),
    Json => Json raw_json |v| v.as_str(),
}

impl<T: Encode + ?Sized> Encode for &T {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = T::NULLABLE;

    #[inline]
    fn variable_len(&self) -> usize {
        (**self).variable_len()
    }

    fn hash_key(&self, hasher: &mut KeyHasher) {
        (**self).hash_key(hasher);
    }

    #[inline]
    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        (**self).encode(writer)
    }
}

impl<T: Encode> Encode for Option<T> {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = true;

    #[inline]
    fn variable_len(&self) -> usize {
        self.as_ref().map_or(0, Encode::variable_len)
    }

    fn hash_key(&self, hasher: &mut KeyHasher) {
        match self {
            Some(value) => value.hash_key(hasher),
            None => hasher.add(ValueRef::Null),
        }
    }

    #[inline]
    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        match self {
            Some(value) => value.encode(writer),
            None => writer.null(),
        }
    }
}

#[cfg(feature = "rust_decimal")]
impl Encode for rust_decimal::Decimal {
    const TYPE: ColumnType = ColumnType::Decimal;

    fn variable_len(&self) -> usize {
        Decimal::from(*self).as_str().len()
    }

    fn hash_key(&self, hasher: &mut KeyHasher) {
        hasher.add(ValueRef::Decimal(Decimal::from(*self).as_str()));
    }

    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        writer.decimal(&Decimal::from(*self))
    }
}

#[cfg(feature = "chrono")]
mod chrono_fields {
    use super::*;

    macro_rules! encode_chrono {
        ($($rust:ty => $variant:ident $method:ident),* $(,)?) => {$(
            impl Encode for $rust {
                const TYPE: ColumnType = ColumnType::$variant;

                fn hash_key(&self, hasher: &mut KeyHasher) {
                    hasher.add($variant::try_from(*self).map_or(ValueRef::Null, ValueRef::$variant));
                }

                fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
                    match $variant::try_from(*self) {
                        Ok(value) => writer.$method(value),
                        Err(_) => Err(writer.out_of_range("outside the years 1 to 9999")),
                    }
                }
            }
        )*};
    }

    encode_chrono! {
        chrono::NaiveDate => Date date,
        chrono::NaiveTime => Time time,
        chrono::NaiveDateTime => Timestamp timestamp,
        chrono::DateTime<chrono::Utc> => TimestampTz timestamptz,
        chrono::DateTime<chrono::FixedOffset> => TimestampTz timestamptz,
    }
}

/// A row built at run time. Columns that were left out take the database's default on insert and
/// are left alone by an update.
#[derive(Clone, PartialEq)]
pub struct DynRow {
    schema: Schema,
    values: Box<[Value]>,
}

impl DynRow {
    pub(crate) fn new(schema: Schema, values: Box<[Value]>) -> Self {
        Self { schema, values }
    }

    /// The value of a column; `None` when there is no such column or it was left out.
    pub fn get(&self, column: &str) -> Option<ValueRef<'_>> {
        self.schema.column_index(column).map(|index| self.values[index].as_ref())
    }

    /// Starts a changed copy: to mend a row that was refused and submit it again.
    ///
    /// ```
    /// # use batchsql_core::{ColumnType, Schema, ValueRef};
    /// # let readings = Schema::builder("readings").column("value", ColumnType::F64).build()?;
    /// let refused = readings.row().set("value", -1.0)?.finish()?;
    /// let mended = refused.edit().set("value", 1.0)?.finish()?;
    /// assert_eq!(mended.get("value"), Some(ValueRef::F64(1.0)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn edit(&self) -> RowBuilder {
        RowBuilder { schema: self.schema.clone(), values: self.values.iter().cloned().map(Some).collect() }
    }

    /// Names and values in column order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ValueRef<'_>)> {
        self.schema.columns().iter().map(|c| c.name()).zip(self.values.iter().map(Value::as_ref))
    }
}

/// Shows the table and the columns, never a value: rows end up in logs by way of errors.
impl fmt::Debug for DynRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.columns().iter().map(|c| c.name()).collect();
        f.debug_struct("DynRow").field("table", self.schema.table()).field("columns", &columns).finish_non_exhaustive()
    }
}

impl Row for DynRow {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn variable_len(&self) -> usize {
        self.values.iter().map(|value| value.as_ref().variable_len()).sum()
    }

    fn key_hash(&self) -> u64 {
        let mut hasher = KeyHasher::default();
        for index in self.schema.key_columns() {
            hasher.add(self.values[*index].as_ref());
        }
        hasher.finish()
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        self.values.iter().try_for_each(|value| writer.value(value.as_ref()))
    }
}

/// Collects the values of a [`DynRow`]. Made by [`Schema::row`].
#[must_use = "a row builder does nothing until finish() is called"]
pub struct RowBuilder {
    schema: Schema,
    values: Vec<Option<Value>>,
}

impl fmt::Debug for RowBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowBuilder").field("table", self.schema.table()).finish_non_exhaustive()
    }
}

impl RowBuilder {
    pub(crate) fn new(schema: Schema) -> Self {
        let values = vec![None; schema.columns().len()];
        Self { schema, values }
    }

    /// Sets a column by name; setting it again overwrites. Integers of another width are taken when
    /// the number fits, `f32` widens to `f64`, integers become decimals; nothing else is converted.
    ///
    /// # Errors
    /// Unknown column, wrong type, number out of range, or `NULL` where it is not allowed.
    pub fn set(mut self, column: &str, value: impl Into<Value>) -> Result<Self, RowError> {
        let index = self.schema.column_index(column).ok_or_else(|| RowError::unknown_column(&self.schema, column))?;
        let value = self.checked(index, value.into())?;
        self.values[index] = Some(value);
        Ok(self)
    }

    /// Sets every column at once, in the schema's order: the fast way when the order is known.
    ///
    /// # Errors
    /// As [`set`](Self::set), or another number of values than columns.
    pub fn set_all(mut self, values: impl IntoIterator<Item = Value>) -> Result<Self, RowError> {
        let mut count = 0;
        for value in values {
            if count == self.values.len() {
                return Err(RowError::wrong_count(&self.schema, count + 1));
            }
            self.values[count] = Some(self.checked(count, value)?);
            count += 1;
        }
        if count < self.values.len() { Err(RowError::wrong_count(&self.schema, count)) } else { Ok(self) }
    }

    /// Ends the row. Nullable columns that were not set are left out of the statement.
    ///
    /// # Errors
    /// A column that is not nullable was not set.
    pub fn finish(self) -> Result<DynRow, RowError> {
        let Self { schema, values } = self;
        if values.iter().all(Option::is_some) {
            return Ok(DynRow::new(schema, values.into_iter().flatten().collect()));
        }
        let missing = schema.columns().iter().zip(&values).find(|(c, v)| v.is_none() && !c.is_nullable());
        if let Some((column, _)) = missing {
            return Err(RowError::missing(&schema, column.name()));
        }
        let present: Vec<bool> = values.iter().map(Option::is_some).collect();
        let schema = schema.project(&present).map_err(|error| RowError::projection(&schema, &error))?;
        Ok(DynRow::new(schema, values.into_iter().flatten().collect()))
    }

    fn checked(&self, index: usize, value: Value) -> Result<Value, RowError> {
        let column = &self.schema.columns()[index];
        match value.as_ref().column_type() {
            None if !column.is_nullable() => Err(RowError::null(&self.schema, column.name())),
            None => Ok(value),
            Some(got) => match value.coerce(column.column_type()) {
                Some(Ok(value)) => Ok(value),
                Some(Err(_)) => {
                    let what = format!("outside the range of {}", column.column_type());
                    Err(RowError::out_of_range(&self.schema, column.name(), &what))
                }
                None => Err(RowError::type_mismatch(&self.schema, column, got)),
            },
        }
    }
}
