//! Owns the borrowed views of a column's values, which drivers read.
//! Must not know how the values are kept, schemas or rows.

use std::fmt;
use std::ops::Range;

use crate::model::column_types::for_each_column_type;
use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};
use crate::model::value::{ColumnType, ValueRef};

/// The values of one column over a range of rows, for drivers that write whole columns.
#[derive(Clone, Copy)]
pub struct ColumnView<'a> {
    values: ColumnValues<'a>,
    validity: Option<&'a [bool]>,
}

impl<'a> ColumnView<'a> {
    pub(crate) fn new(values: ColumnValues<'a>, validity: Option<&'a [bool]>) -> Self {
        Self { values, validity }
    }

    /// The typed slices. Where a value is `NULL` they hold a placeholder: check [`is_null`](Self::is_null) first.
    pub fn values(&self) -> ColumnValues<'a> {
        self.values
    }

    /// True where the value is present; `None` when the column is not nullable.
    pub fn validity(&self) -> Option<&'a [bool]> {
        self.validity
    }

    /// Bytes of its texts and byte strings.
    pub(crate) fn variable_len(&self) -> usize {
        let len = |first: u32, ends: &[u32]| ends.last().map_or(0, |end| (end - first) as usize);
        match self.values {
            ColumnValues::Decimal(v) | ColumnValues::Text(v) | ColumnValues::Json(v) => len(v.first, v.ends),
            ColumnValues::Bytes(v) => len(v.first, v.ends),
            _ => 0,
        }
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
        macro_rules! value {
            (() $($variant:ident $name:literal $kind:tt;)*) => {
                match self.values {
                    $(ColumnValues::$variant(v) => ValueRef::$variant(v.value(row)),)*
                }
            };
        }
        for_each_column_type!(value!())
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

impl ColumnValues<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        macro_rules! len {
            (() $($variant:ident $name:literal $kind:tt;)*) => {
                match self {
                    $(Self::$variant(v) => v.len(),)*
                }
            };
        }
        for_each_column_type!(len!())
    }

    /// True when there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the column.
    pub fn column_type(&self) -> ColumnType {
        macro_rules! types {
            (() $($variant:ident $name:literal $kind:tt;)*) => {
                match self {
                    $(Self::$variant(_) => ColumnType::$variant,)*
                }
            };
        }
        for_each_column_type!(types!())
    }
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

/// One value out of those of a column.
trait Pick {
    type Value;

    fn value(&self, row: usize) -> Self::Value;
}

impl<T: Copy> Pick for &[T] {
    type Value = T;

    #[inline]
    fn value(&self, row: usize) -> T {
        self[row]
    }
}

impl<'a> Pick for TextValues<'a> {
    type Value = &'a str;

    #[inline]
    fn value(&self, row: usize) -> &'a str {
        self.get(row)
    }
}

impl<'a> Pick for BytesValues<'a> {
    type Value = &'a [u8];

    #[inline]
    fn value(&self, row: usize) -> &'a [u8] {
        self.get(row)
    }
}

/// Where the value before `start` ended.
fn first(ends: &[u32], start: usize) -> u32 {
    start.checked_sub(1).map_or(0, |before| ends[before])
}

impl<'a> TextValues<'a> {
    /// The values in `range` of a column whose value `i` stops at `ends[i]`.
    pub(crate) fn new(ends: &'a [u32], data: &'a str, range: Range<usize>) -> Self {
        Self { first: first(ends, range.start), ends: &ends[range], data }
    }

    /// Where the first value begins and each one ends, and all of them end to end.
    pub(crate) fn parts(&self) -> (u32, &'a [u32], &'a str) {
        let last = self.ends.last().copied().unwrap_or(self.first);
        (self.first, self.ends, &self.data[self.first as usize..last as usize])
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
    /// The values in `range` of a column whose value `i` stops at `ends[i]`.
    pub(crate) fn new(ends: &'a [u32], data: &'a [u8], range: Range<usize>) -> Self {
        Self { first: first(ends, range.start), ends: &ends[range], data }
    }

    /// Where the first value begins and each one ends, and all of them end to end.
    pub(crate) fn parts(&self) -> (u32, &'a [u32], &'a [u8]) {
        let last = self.ends.last().copied().unwrap_or(self.first);
        (self.first, self.ends, &self.data[self.first as usize..last as usize])
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

// Row values must not reach a log, also not through `Debug`: these show kind and size.

impl fmt::Debug for ColumnView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnView").field("values", &self.values).finish_non_exhaustive()
    }
}

impl fmt::Debug for ColumnValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        macro_rules! show {
            (() $($variant:ident $name:literal $kind:tt;)*) => {
                match self {
                    $(Self::$variant(v) => write!(f, "{}({} values)", stringify!($variant), v.len()),)*
                }
            };
        }
        for_each_column_type!(show!())
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
