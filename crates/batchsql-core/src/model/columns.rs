//! Owns the typed column buffers of a batch: values, NULLs, and the borrowed views of both.
//! Must not know schemas, rows or who writes them.

use std::fmt;
use std::ops::Range;

use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};
use crate::model::value::{ColumnType, ValueRef};

/// The values of one column. A `NULL` keeps a placeholder here, so that indexes stay aligned.
pub(crate) enum Buffer {
    Bool(Vec<bool>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Decimal(TextBuffer),
    Text(TextBuffer),
    Bytes(BytesBuffer),
    Uuid(Vec<[u8; 16]>),
    Json(TextBuffer),
    Date(Vec<Date>),
    Time(Vec<Time>),
    Timestamp(Vec<Timestamp>),
    TimestampTz(Vec<TimestampTz>),
}

/// Runs one expression for the fixed-width variants and others for the variable ones.
macro_rules! for_each_buffer {
    ($buffer:expr, $fixed:ident => $fixed_expr:expr, $text:ident => $text_expr:expr, $bytes:ident => $bytes_expr:expr) => {
        match $buffer {
            Buffer::Bool($fixed) => $fixed_expr,
            Buffer::I16($fixed) => $fixed_expr,
            Buffer::I32($fixed) => $fixed_expr,
            Buffer::I64($fixed) => $fixed_expr,
            Buffer::U64($fixed) => $fixed_expr,
            Buffer::F32($fixed) => $fixed_expr,
            Buffer::F64($fixed) => $fixed_expr,
            Buffer::Uuid($fixed) => $fixed_expr,
            Buffer::Date($fixed) => $fixed_expr,
            Buffer::Time($fixed) => $fixed_expr,
            Buffer::Timestamp($fixed) => $fixed_expr,
            Buffer::TimestampTz($fixed) => $fixed_expr,
            Buffer::Decimal($text) | Buffer::Text($text) | Buffer::Json($text) => $text_expr,
            Buffer::Bytes($bytes) => $bytes_expr,
        }
    };
}

/// Text values end to end; `ends[i]` is where value `i` stops.
pub(crate) struct TextBuffer {
    ends: Vec<u32>,
    data: String,
}

/// Byte values end to end; `ends[i]` is where value `i` stops.
pub(crate) struct BytesBuffer {
    ends: Vec<u32>,
    data: Vec<u8>,
}

/// The byte budget is at most `u32::MAX`, and a batch never outgrows the budget.
fn end(len: usize) -> u32 {
    u32::try_from(len).expect("the byte budget keeps a batch below 4 GiB")
}

impl TextBuffer {
    fn reserve(&mut self, rows: usize, bytes: usize) {
        self.ends.reserve(rows);
        self.data.reserve(bytes);
    }

    fn append(&mut self, other: &Self) {
        let before = end(self.data.len());
        self.data.push_str(&other.data);
        // The sum fits: the caller keeps both together below the byte budget.
        end(self.data.len());
        self.ends.extend(other.ends.iter().map(|end| before + end));
    }

    fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { ends: Vec::with_capacity(rows), data: String::with_capacity(bytes) }
    }

    #[inline]
    pub(crate) fn push(&mut self, text: &str) {
        self.data.push_str(text);
        self.ends.push(end(self.data.len()));
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.data.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }
}

impl BytesBuffer {
    fn reserve(&mut self, rows: usize, bytes: usize) {
        self.ends.reserve(rows);
        self.data.reserve(bytes);
    }

    fn append(&mut self, other: &Self) {
        let before = end(self.data.len());
        self.data.extend_from_slice(&other.data);
        // The sum fits: the caller keeps both together below the byte budget.
        end(self.data.len());
        self.ends.extend(other.ends.iter().map(|end| before + end));
    }

    fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { ends: Vec::with_capacity(rows), data: Vec::with_capacity(bytes) }
    }

    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.ends.push(end(self.data.len()));
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.data.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }
}

/// One column of an open or sealed batch.
pub(crate) struct ColumnBuffer {
    pub(crate) buffer: Buffer,
    /// `Some` for nullable columns: true where the value is present.
    pub(crate) validity: Option<Vec<bool>>,
}

impl ColumnBuffer {
    /// An empty column with room for `rows` values of together `bytes` variable bytes.
    pub(crate) fn new(ty: ColumnType, nullable: bool, rows: usize, bytes: usize) -> Self {
        let text = || TextBuffer::with_capacity(rows, bytes);
        let buffer = match ty {
            ColumnType::Bool => Buffer::Bool(Vec::with_capacity(rows)),
            ColumnType::I16 => Buffer::I16(Vec::with_capacity(rows)),
            ColumnType::I32 => Buffer::I32(Vec::with_capacity(rows)),
            ColumnType::I64 => Buffer::I64(Vec::with_capacity(rows)),
            ColumnType::U64 => Buffer::U64(Vec::with_capacity(rows)),
            ColumnType::F32 => Buffer::F32(Vec::with_capacity(rows)),
            ColumnType::F64 => Buffer::F64(Vec::with_capacity(rows)),
            ColumnType::Decimal => Buffer::Decimal(text()),
            ColumnType::Text => Buffer::Text(text()),
            ColumnType::Json => Buffer::Json(text()),
            ColumnType::Bytes => Buffer::Bytes(BytesBuffer::with_capacity(rows, bytes)),
            ColumnType::Uuid => Buffer::Uuid(Vec::with_capacity(rows)),
            ColumnType::Date => Buffer::Date(Vec::with_capacity(rows)),
            ColumnType::Time => Buffer::Time(Vec::with_capacity(rows)),
            ColumnType::Timestamp => Buffer::Timestamp(Vec::with_capacity(rows)),
            ColumnType::TimestampTz => Buffer::TimestampTz(Vec::with_capacity(rows)),
        };
        Self { buffer, validity: nullable.then(|| Vec::with_capacity(rows)) }
    }

    /// Appends a `NULL`; the caller has checked that the column is nullable.
    pub(crate) fn push_null(&mut self) {
        match &mut self.buffer {
            Buffer::Bool(v) => v.push(false),
            Buffer::I16(v) => v.push(0),
            Buffer::I32(v) => v.push(0),
            Buffer::I64(v) => v.push(0),
            Buffer::U64(v) => v.push(0),
            Buffer::F32(v) => v.push(0.0),
            Buffer::F64(v) => v.push(0.0),
            Buffer::Uuid(v) => v.push([0; 16]),
            Buffer::Date(v) => v.push(Date::MIN),
            Buffer::Time(v) => v.push(Time::MIN),
            Buffer::Timestamp(v) => v.push(Timestamp::MIN),
            Buffer::TimestampTz(v) => v.push(TimestampTz::MIN),
            Buffer::Decimal(v) | Buffer::Text(v) | Buffer::Json(v) => v.push(""),
            Buffer::Bytes(v) => v.push(&[]),
        }
        if let Some(validity) = &mut self.validity {
            validity.push(false);
        }
    }

    /// Bytes of the variable parts.
    pub(crate) fn variable_len(&self) -> usize {
        for_each_buffer!(&self.buffer, _v => 0, v => v.data.len(), v => v.data.len())
    }

    /// A copy of some rows, in the order given. It takes no more room than they need.
    pub(crate) fn gather(&self, rows: &[u32]) -> Self {
        /// Copies values of fixed width.
        macro_rules! fixed {
            ($variant:ident, $values:expr) => {
                Buffer::$variant(rows.iter().map(|row| $values[*row as usize]).collect())
            };
        }
        /// Copies values that lie end to end.
        macro_rules! variable {
            ($variant:ident, $buffer:ident, $view:ident, $values:expr) => {{
                let view = $view::new($values, 0..$values.ends.len());
                let values = || rows.iter().map(|row| view.get(*row as usize));
                let mut copy = $buffer::with_capacity(rows.len(), values().map(|value| value.len()).sum());
                values().for_each(|value| copy.push(value));
                Buffer::$variant(copy)
            }};
        }
        let buffer = match &self.buffer {
            Buffer::Bool(v) => fixed!(Bool, v),
            Buffer::I16(v) => fixed!(I16, v),
            Buffer::I32(v) => fixed!(I32, v),
            Buffer::I64(v) => fixed!(I64, v),
            Buffer::U64(v) => fixed!(U64, v),
            Buffer::F32(v) => fixed!(F32, v),
            Buffer::F64(v) => fixed!(F64, v),
            Buffer::Uuid(v) => fixed!(Uuid, v),
            Buffer::Date(v) => fixed!(Date, v),
            Buffer::Time(v) => fixed!(Time, v),
            Buffer::Timestamp(v) => fixed!(Timestamp, v),
            Buffer::TimestampTz(v) => fixed!(TimestampTz, v),
            Buffer::Decimal(v) => variable!(Decimal, TextBuffer, TextValues, v),
            Buffer::Text(v) => variable!(Text, TextBuffer, TextValues, v),
            Buffer::Json(v) => variable!(Json, TextBuffer, TextValues, v),
            Buffer::Bytes(v) => variable!(Bytes, BytesBuffer, BytesValues, v),
        };
        let validity = self.validity.as_ref().map(|validity| rows.iter().map(|row| validity[*row as usize]).collect());
        Self { buffer, validity }
    }

    /// Makes room for `rows` more values of together `bytes` variable bytes.
    pub(crate) fn reserve(&mut self, rows: usize, bytes: usize) {
        for_each_buffer!(&mut self.buffer, v => v.reserve(rows), v => v.reserve(rows, bytes), v => v.reserve(rows, bytes));
        if let Some(validity) = &mut self.validity {
            validity.reserve(rows);
        }
    }

    /// Appends the values of a column of the same type.
    ///
    /// # Panics
    /// When the other column has another type: both belong to one schema.
    pub(crate) fn append(&mut self, other: &Self) {
        /// Pairs the buffers of two columns by type.
        macro_rules! append {
            ($($variant:ident => $append:ident),*) => {
                match (&mut self.buffer, &other.buffer) {
                    $((Buffer::$variant(to), Buffer::$variant(from)) => to.$append(from),)*
                    _ => panic!("columns of one schema have one type"),
                }
            };
        }
        append!(
            Bool => extend_from_slice, I16 => extend_from_slice, I32 => extend_from_slice, I64 => extend_from_slice,
            U64 => extend_from_slice, F32 => extend_from_slice, F64 => extend_from_slice, Uuid => extend_from_slice,
            Date => extend_from_slice, Time => extend_from_slice, Timestamp => extend_from_slice,
            TimestampTz => extend_from_slice, Decimal => append, Text => append, Json => append, Bytes => append
        );
        if let (Some(validity), Some(other)) = (&mut self.validity, &other.validity) {
            validity.extend_from_slice(other);
        }
    }

    /// Forgets every value from row `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        for_each_buffer!(&mut self.buffer, v => v.truncate(rows), v => v.truncate(rows), v => v.truncate(rows));
        if let Some(validity) = &mut self.validity {
            validity.truncate(rows);
        }
    }

    /// Borrows the rows in `range`.
    pub(crate) fn view(&self, range: Range<usize>) -> ColumnView<'_> {
        let text = |v| TextValues::new(v, range.clone());
        let values = match &self.buffer {
            Buffer::Bool(v) => ColumnValues::Bool(&v[range.clone()]),
            Buffer::I16(v) => ColumnValues::I16(&v[range.clone()]),
            Buffer::I32(v) => ColumnValues::I32(&v[range.clone()]),
            Buffer::I64(v) => ColumnValues::I64(&v[range.clone()]),
            Buffer::U64(v) => ColumnValues::U64(&v[range.clone()]),
            Buffer::F32(v) => ColumnValues::F32(&v[range.clone()]),
            Buffer::F64(v) => ColumnValues::F64(&v[range.clone()]),
            Buffer::Uuid(v) => ColumnValues::Uuid(&v[range.clone()]),
            Buffer::Date(v) => ColumnValues::Date(&v[range.clone()]),
            Buffer::Time(v) => ColumnValues::Time(&v[range.clone()]),
            Buffer::Timestamp(v) => ColumnValues::Timestamp(&v[range.clone()]),
            Buffer::TimestampTz(v) => ColumnValues::TimestampTz(&v[range.clone()]),
            Buffer::Decimal(v) => ColumnValues::Decimal(text(v)),
            Buffer::Text(v) => ColumnValues::Text(text(v)),
            Buffer::Json(v) => ColumnValues::Json(text(v)),
            Buffer::Bytes(v) => ColumnValues::Bytes(BytesValues::new(v, range.clone())),
        };
        ColumnView { values, validity: self.validity.as_ref().map(|validity| &validity[range]) }
    }
}

/// The values of one column over a range of rows, for drivers that write whole columns.
#[derive(Clone, Copy)]
pub struct ColumnView<'a> {
    values: ColumnValues<'a>,
    validity: Option<&'a [bool]>,
}

impl<'a> ColumnView<'a> {
    /// The typed slices. Where a value is `NULL` they hold a placeholder: ask
    /// [`is_null`](Self::is_null) first.
    pub fn values(&self) -> ColumnValues<'a> {
        self.values
    }

    /// True where the value is present; `None` when the column is not nullable.
    pub fn validity(&self) -> Option<&'a [bool]> {
        self.validity
    }

    /// Whether row `row` of the view is `NULL`.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        self.validity.is_some_and(|validity| !validity[row])
    }

    /// The value of row `row` of the view.
    #[inline]
    pub fn get(&self, row: usize) -> ValueRef<'a> {
        if self.is_null(row) {
            return ValueRef::Null;
        }
        match self.values {
            ColumnValues::Bool(v) => ValueRef::Bool(v[row]),
            ColumnValues::I16(v) => ValueRef::I16(v[row]),
            ColumnValues::I32(v) => ValueRef::I32(v[row]),
            ColumnValues::I64(v) => ValueRef::I64(v[row]),
            ColumnValues::U64(v) => ValueRef::U64(v[row]),
            ColumnValues::F32(v) => ValueRef::F32(v[row]),
            ColumnValues::F64(v) => ValueRef::F64(v[row]),
            ColumnValues::Decimal(v) => ValueRef::Decimal(v.get(row)),
            ColumnValues::Text(v) => ValueRef::Text(v.get(row)),
            ColumnValues::Bytes(v) => ValueRef::Bytes(v.get(row)),
            ColumnValues::Uuid(v) => ValueRef::Uuid(v[row]),
            ColumnValues::Json(v) => ValueRef::Json(v.get(row)),
            ColumnValues::Date(v) => ValueRef::Date(v[row]),
            ColumnValues::Time(v) => ValueRef::Time(v[row]),
            ColumnValues::Timestamp(v) => ValueRef::Timestamp(v[row]),
            ColumnValues::TimestampTz(v) => ValueRef::TimestampTz(v[row]),
        }
    }
}

/// Typed slices of one column.
#[derive(Clone, Copy)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the slice of the column type of the same name")]
pub enum ColumnValues<'a> {
    Bool(&'a [bool]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U64(&'a [u64]),
    F32(&'a [f32]),
    F64(&'a [f64]),
    Decimal(TextValues<'a>),
    Text(TextValues<'a>),
    Bytes(BytesValues<'a>),
    Uuid(&'a [[u8; 16]]),
    Json(TextValues<'a>),
    Date(&'a [Date]),
    Time(&'a [Time]),
    Timestamp(&'a [Timestamp]),
    TimestampTz(&'a [TimestampTz]),
}

/// Text values of one column, stored end to end.
#[derive(Clone, Copy)]
pub struct TextValues<'a> {
    first: u32,
    ends: &'a [u32],
    data: &'a str,
}

/// Byte values of one column, stored end to end.
#[derive(Clone, Copy)]
pub struct BytesValues<'a> {
    first: u32,
    ends: &'a [u32],
    data: &'a [u8],
}

/// Where the value before `start` ended.
fn first(ends: &[u32], start: usize) -> u32 {
    start.checked_sub(1).map_or(0, |before| ends[before])
}

impl<'a> TextValues<'a> {
    fn new(buffer: &'a TextBuffer, range: Range<usize>) -> Self {
        Self { first: first(&buffer.ends, range.start), ends: &buffer.ends[range], data: &buffer.data }
    }

    /// The value of row `row` of the view; the empty string where it is `NULL`.
    #[inline]
    pub fn get(&self, row: usize) -> &'a str {
        let start = row.checked_sub(1).map_or(self.first, |before| self.ends[before]);
        &self.data[start as usize..self.ends[row] as usize]
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there is no value.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl<'a> BytesValues<'a> {
    fn new(buffer: &'a BytesBuffer, range: Range<usize>) -> Self {
        Self { first: first(&buffer.ends, range.start), ends: &buffer.ends[range], data: &buffer.data }
    }

    /// The value of row `row` of the view; empty where it is `NULL`.
    #[inline]
    pub fn get(&self, row: usize) -> &'a [u8] {
        let start = row.checked_sub(1).map_or(self.first, |before| self.ends[before]);
        &self.data[start as usize..self.ends[row] as usize]
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there is no value.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

// Row values never reach a log, also not by way of `Debug`: these show kind and size.

impl fmt::Debug for ColumnView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnView").field("values", &self.values).finish_non_exhaustive()
    }
}

impl fmt::Debug for ColumnValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, rows) = match self {
            Self::Bool(v) => ("Bool", v.len()),
            Self::I16(v) => ("I16", v.len()),
            Self::I32(v) => ("I32", v.len()),
            Self::I64(v) => ("I64", v.len()),
            Self::U64(v) => ("U64", v.len()),
            Self::F32(v) => ("F32", v.len()),
            Self::F64(v) => ("F64", v.len()),
            Self::Decimal(v) => ("Decimal", v.len()),
            Self::Text(v) => ("Text", v.len()),
            Self::Bytes(v) => ("Bytes", v.len()),
            Self::Uuid(v) => ("Uuid", v.len()),
            Self::Json(v) => ("Json", v.len()),
            Self::Date(v) => ("Date", v.len()),
            Self::Time(v) => ("Time", v.len()),
            Self::Timestamp(v) => ("Timestamp", v.len()),
            Self::TimestampTz(v) => ("TimestampTz", v.len()),
        };
        write!(f, "{kind}({rows} values)")
    }
}

impl fmt::Debug for TextValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextValues({} values)", self.len())
    }
}

impl fmt::Debug for BytesValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BytesValues({} values)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_appended_value_by_value() {
        let column = |values: &[Option<&str>]| {
            let mut column = ColumnBuffer::new(ColumnType::Text, true, 0, 0);
            for value in values {
                match (value, &mut column.buffer) {
                    (None, _) => column.push_null(),
                    (Some(value), Buffer::Text(text)) => {
                        text.push(value);
                        column.validity.as_mut().unwrap().push(true);
                    }
                    _ => unreachable!("a text column"),
                }
            }
            column
        };
        let mut first = column(&[Some("a"), None, Some("ccc")]);
        first.append(&column(&[None, Some("ee")]));
        first.append(&column(&[]));
        let values: Vec<ValueRef<'_>> = (0..5).map(|row| first.view(0..5).get(row)).collect();
        let text = ValueRef::Text;
        assert_eq!(values, [text("a"), ValueRef::Null, text("ccc"), ValueRef::Null, text("ee")]);
    }

    #[test]
    fn a_copy_takes_no_more_room_than_its_rows_need() {
        let mut column = ColumnBuffer::new(ColumnType::Text, true, 16, 0);
        let Buffer::Text(text) = &mut column.buffer else { panic!("no text") };
        (0..1000).for_each(|row| text.push(&"x".repeat(row % 7)));
        column.validity = Some(vec![true; 1000]);
        let rows: Vec<u32> = (0..1000).rev().collect();
        let copy = column.gather(&rows);
        let Buffer::Text(text) = &copy.buffer else { panic!("no text") };
        assert_eq!((text.ends.capacity(), text.data.capacity()), (1000, text.data.len()));
        assert_eq!(copy.validity.as_ref().map(Vec::capacity), Some(1000));
        assert_eq!(copy.view(0..1000).get(1), ValueRef::Text("xxxx"));
    }
}
