//! Owns how the values of one column are stored: fixed-width values as a vector, text and bytes end to end.
//! Must not know column types, NULLs or schemas.

use std::ops::Range;

use crate::model::views::{BytesValues, TextValues};

/// The operations that every form of storage has.
pub(crate) trait Buffer: Sized {
    /// A borrowed view of some values.
    type Values<'a>
    where
        Self: 'a;

    /// An empty buffer with capacity for `rows` values with `bytes` variable bytes in total.
    fn with_capacity(rows: usize, bytes: usize) -> Self;

    /// Reserves capacity for `rows` more values with `bytes` variable bytes in total.
    fn reserve(&mut self, rows: usize, bytes: usize);

    /// Releases unused capacity.
    fn shrink(&mut self);

    /// Appends values.
    fn extend_from(&mut self, values: Self::Values<'_>);

    /// Appends the values of another buffer.
    fn append(&mut self, other: &Self);

    /// Removes every value from row `rows` on.
    fn truncate(&mut self, rows: usize);

    /// A copy of some values, in the order given. It takes no more memory than they need.
    fn gather(&self, rows: &[u32]) -> Self;

    /// Borrows the values in `range`.
    fn values(&self, range: Range<usize>) -> Self::Values<'_>;

    /// Bytes of the variable parts.
    fn variable_len(&self) -> usize;
}

impl<T: Copy + 'static> Buffer for Vec<T> {
    type Values<'a> = &'a [T];

    fn with_capacity(rows: usize, _bytes: usize) -> Self {
        Self::with_capacity(rows)
    }

    fn reserve(&mut self, rows: usize, _bytes: usize) {
        self.reserve(rows);
    }

    fn shrink(&mut self) {
        self.shrink_to_fit();
    }

    fn extend_from(&mut self, values: &[T]) {
        self.extend_from_slice(values);
    }

    fn append(&mut self, other: &Self) {
        self.extend_from_slice(other);
    }

    fn truncate(&mut self, rows: usize) {
        self.truncate(rows);
    }

    fn gather(&self, rows: &[u32]) -> Self {
        rows.iter().map(|row| self[*row as usize]).collect()
    }

    fn values(&self, range: Range<usize>) -> &[T] {
        &self[range]
    }

    fn variable_len(&self) -> usize {
        0
    }
}

/// The byte budget is at most `u32::MAX`, and a batch never exceeds the budget.
fn end(len: usize) -> u32 {
    u32::try_from(len).expect("the byte budget keeps a batch below 4 GiB")
}

/// A buffer of values stored end to end; `ends[i]` is where value `i` ends.
macro_rules! end_to_end {
    ($(#[$doc:meta])* $buffer:ident of $data:ty, $value:ty, $append:ident, $values:ident) => {
        $(#[$doc])*
        pub(crate) struct $buffer {
            pub(crate) ends: Vec<u32>,
            pub(crate) data: $data,
        }

        impl $buffer {
            #[inline]
            pub(crate) fn push(&mut self, value: &$value) {
                self.data.$append(value);
                self.ends.push(end(self.data.len()));
            }
        }

        impl Buffer for $buffer {
            type Values<'a> = $values<'a>;

            fn with_capacity(rows: usize, bytes: usize) -> Self {
                Self { ends: Vec::with_capacity(rows), data: <$data>::with_capacity(bytes) }
            }

            fn reserve(&mut self, rows: usize, bytes: usize) {
                self.ends.reserve(rows);
                self.data.reserve(bytes);
            }

            fn shrink(&mut self) {
                self.ends.shrink_to_fit();
                self.data.shrink_to_fit();
            }

            fn extend_from(&mut self, values: $values<'_>) {
                let before = end(self.data.len());
                let (first, ends, data) = values.parts();
                self.data.$append(data);
                end(self.data.len());
                self.ends.extend(ends.iter().map(|end| before + (end - first)));
            }

            fn append(&mut self, other: &Self) {
                let before = end(self.data.len());
                self.data.$append(&other.data);
                // The sum fits: the caller keeps both together below the byte budget.
                end(self.data.len());
                self.ends.extend(other.ends.iter().map(|end| before + end));
            }

            fn truncate(&mut self, rows: usize) {
                self.ends.truncate(rows);
                self.data.truncate(self.ends.last().map_or(0, |end| *end as usize));
            }

            fn gather(&self, rows: &[u32]) -> Self {
                let view = self.values(0..self.ends.len());
                let values = || rows.iter().map(|row| view.get(*row as usize));
                let mut copy = <Self as Buffer>::with_capacity(rows.len(), values().map(|value| value.len()).sum());
                values().for_each(|value| copy.push(value));
                copy
            }

            fn values(&self, range: Range<usize>) -> $values<'_> {
                $values::new(&self.ends, &self.data, range)
            }

            fn variable_len(&self) -> usize {
                self.data.len()
            }
        }
    };
}

end_to_end! {
    /// Text values end to end.
    TextBuffer of String, str, push_str, TextValues
}

end_to_end! {
    /// Byte values end to end.
    BytesBuffer of Vec<u8>, [u8], extend_from_slice, BytesValues
}
