//! Owns the columns of a batch by type: which buffer stores the values of which type, and their NULLs.
//! Must not know schemas, rows or who writes them.

use std::ops::Range;

use crate::model::buffer::{Buffer, BytesBuffer, TextBuffer};
use crate::model::column_types::for_each_column_type;
use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};
use crate::model::value::{ColumnType, ValueRef};
use crate::model::views::{ColumnValues, ColumnView};

macro_rules! buffer_of {
    ([fixed $rust:ty = $null:expr]) => { Vec<$rust> };
    ([text]) => { TextBuffer };
    ([bytes]) => { BytesBuffer };
}

/// The placeholder in a buffer where the column is `NULL`.
macro_rules! placeholder {
    ([fixed $rust:ty = $null:expr]) => {
        $null
    };
    ([text]) => {
        ""
    };
    ([bytes]) => {
        &[]
    };
}

macro_rules! typed_buffer {
    (() $($variant:ident $name:literal $kind:tt;)*) => {
        /// The values of one column. A `NULL` keeps a placeholder here, so that indexes stay aligned.
        pub(crate) enum TypedBuffer {
            $($variant(buffer_of!($kind)),)*
        }

        impl TypedBuffer {
            fn with_capacity(ty: ColumnType, rows: usize, bytes: usize) -> Self {
                match ty {
                    $(ColumnType::$variant => Self::$variant(Buffer::with_capacity(rows, bytes)),)*
                }
            }

            fn push_placeholder(&mut self) {
                match self {
                    $(Self::$variant(buffer) => buffer.push(placeholder!($kind)),)*
                }
            }

            /// Appends a value of its own type.
            fn push(&mut self, value: ValueRef<'_>) {
                match (self, value) {
                    $((Self::$variant(buffer), ValueRef::$variant(value)) => buffer.push(value),)*
                    _ => panic!("a value has the type of its column"),
                }
            }

            fn variable_len(&self) -> usize {
                match self {
                    $(Self::$variant(buffer) => buffer.variable_len(),)*
                }
            }

            fn gather(&self, rows: &[u32]) -> Self {
                match self {
                    $(Self::$variant(buffer) => Self::$variant(buffer.gather(rows)),)*
                }
            }

            fn reserve(&mut self, rows: usize, bytes: usize) {
                match self {
                    $(Self::$variant(buffer) => Buffer::reserve(buffer, rows, bytes),)*
                }
            }

            fn shrink(&mut self) {
                match self {
                    $(Self::$variant(buffer) => Buffer::shrink(buffer),)*
                }
            }

            fn append(&mut self, other: &Self) {
                match (self, other) {
                    $((Self::$variant(to), Self::$variant(from)) => Buffer::append(to, from),)*
                    _ => panic!("columns of one schema have one type"),
                }
            }

            /// Appends values of its own type.
            fn extend(&mut self, values: ColumnValues<'_>) {
                match (self, values) {
                    $((Self::$variant(to), ColumnValues::$variant(from)) => Buffer::extend_from(to, from),)*
                    _ => panic!("values have the type of their column"),
                }
            }

            fn truncate(&mut self, rows: usize) {
                match self {
                    $(Self::$variant(buffer) => buffer.truncate(rows),)*
                }
            }

            fn values(&self, range: Range<usize>) -> ColumnValues<'_> {
                match self {
                    $(Self::$variant(buffer) => ColumnValues::$variant(buffer.values(range)),)*
                }
            }
        }
    };
}

for_each_column_type!(typed_buffer!());

/// One column of an open or sealed batch.
pub(crate) struct ColumnBuffer {
    pub(crate) buffer: TypedBuffer,
    /// `Some` for nullable columns: true where the value is present.
    pub(crate) validity: Option<Vec<bool>>,
}

impl ColumnBuffer {
    /// An empty column with capacity for `rows` values with `bytes` variable bytes in total.
    pub(crate) fn new(ty: ColumnType, nullable: bool, rows: usize, bytes: usize) -> Self {
        let buffer = TypedBuffer::with_capacity(ty, rows, bytes);
        Self { buffer, validity: nullable.then(|| Vec::with_capacity(rows)) }
    }

    /// Appends a `NULL`; the caller has checked that the column is nullable.
    pub(crate) fn push_null(&mut self) {
        self.buffer.push_placeholder();
        if let Some(validity) = &mut self.validity {
            validity.push(false);
        }
    }

    /// Appends a value.
    ///
    /// # Panics
    /// When it has another type than the column, or is `NULL` in a column that is not nullable.
    pub(crate) fn push(&mut self, value: ValueRef<'_>) {
        if value == ValueRef::Null {
            assert!(self.validity.is_some(), "NULL is only in nullable columns");
            return self.push_null();
        }
        self.buffer.push(value);
        if let Some(validity) = &mut self.validity {
            validity.push(true);
        }
    }

    /// Bytes of the variable parts.
    pub(crate) fn variable_len(&self) -> usize {
        self.buffer.variable_len()
    }

    /// A copy of some rows, in the order given. It takes no more memory than they need.
    pub(crate) fn gather(&self, rows: &[u32]) -> Self {
        let validity = self.validity.as_ref().map(|validity| validity.gather(rows));
        Self { buffer: self.buffer.gather(rows), validity }
    }

    /// Reserves capacity for `rows` more values with `bytes` variable bytes in total.
    pub(crate) fn reserve(&mut self, rows: usize, bytes: usize) {
        self.buffer.reserve(rows, bytes);
        if let Some(validity) = &mut self.validity {
            validity.reserve(rows);
        }
    }

    /// Releases unused capacity.
    pub(crate) fn shrink(&mut self) {
        self.buffer.shrink();
        if let Some(validity) = &mut self.validity {
            validity.shrink_to_fit();
        }
    }

    /// Appends the values of a column of the same type.
    ///
    /// # Panics
    /// When the other column has another type: both belong to one schema.
    pub(crate) fn append(&mut self, other: &Self) {
        self.buffer.append(&other.buffer);
        if let (Some(validity), Some(other)) = (&mut self.validity, &other.validity) {
            validity.extend_from_slice(other);
        }
    }

    /// Appends the values of a view. Without a validity, all of them are present.
    ///
    /// # Panics
    /// When the view has another type, or has `NULL` in a column that is not nullable.
    pub(crate) fn extend(&mut self, view: ColumnView<'_>) {
        let values = view.values();
        let rows = values.len();
        self.buffer.extend(values);
        match (&mut self.validity, view.validity()) {
            (Some(validity), Some(present)) => validity.extend_from_slice(present),
            (Some(validity), None) => validity.extend(std::iter::repeat_n(true, rows)),
            (None, Some(present)) => assert!(!present.contains(&false), "NULL is only in nullable columns"),
            (None, None) => {}
        }
    }

    /// Removes every value from row `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.buffer.truncate(rows);
        if let Some(validity) = &mut self.validity {
            validity.truncate(rows);
        }
    }

    /// Borrows the rows in `range`.
    pub(crate) fn view(&self, range: Range<usize>) -> ColumnView<'_> {
        let validity = self.validity.as_ref().map(|validity| &validity[range.clone()]);
        ColumnView::new(self.buffer.values(range), validity)
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
                    (Some(value), TypedBuffer::Text(text)) => {
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
        let TypedBuffer::Text(text) = &mut column.buffer else { panic!("no text") };
        (0..1000).for_each(|row| text.push(&"x".repeat(row % 7)));
        column.validity = Some(vec![true; 1000]);
        let rows: Vec<u32> = (0..1000).rev().collect();
        let copy = column.gather(&rows);
        let TypedBuffer::Text(text) = &copy.buffer else { panic!("no text") };
        assert_eq!((text.ends.capacity(), text.data.capacity()), (1000, text.data.len()));
        assert_eq!(copy.validity.as_ref().map(Vec::capacity), Some(1000));
        assert_eq!(copy.view(0..1000).get(1), ValueRef::Text("xxxx"));
    }
}
