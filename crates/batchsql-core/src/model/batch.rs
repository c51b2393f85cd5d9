//! Owns the sealed batch and `Rows`, the view of it that is sliced, split and handed to drivers.
//! Must not know how a batch was filled or what becomes of it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::model::columns::ColumnBuffer;
use crate::model::schema::Schema;
use crate::model::value::ValueRef;
use crate::model::views::ColumnView;

/// The columns of one sealed batch.
pub struct Batch {
    schema: Schema,
    columns: Vec<ColumnBuffer>,
    len: usize,
    bytes: usize,
}

impl Batch {
    pub(crate) fn new(schema: Schema, columns: Vec<ColumnBuffer>, len: usize, bytes: usize) -> Self {
        Self { schema, columns, len, bytes }
    }

    /// A copy of some rows, in the order given.
    pub(crate) fn gather(&self, rows: &[u32]) -> Self {
        let columns: Vec<ColumnBuffer> = self.columns.iter().map(|column| column.gather(rows)).collect();
        let variable: usize = columns.iter().map(ColumnBuffer::variable_len).sum();
        let bytes = rows.len() * self.schema.fixed_row_len() + variable;
        Self::new(self.schema.clone(), columns, rows.len(), bytes)
    }

    /// Appends the rows of other batches of the same schema.
    pub(crate) fn append(&mut self, others: &[Arc<Self>]) {
        let rows = others.iter().map(|other| other.len).sum();
        for (index, column) in self.columns.iter_mut().enumerate() {
            let bytes = others.iter().map(|other| other.columns[index].variable_len()).sum();
            column.reserve(rows, bytes);
            others.iter().for_each(|other| column.append(&other.columns[index]));
        }
        self.len += rows;
        self.bytes += others.iter().map(|other| other.bytes).sum::<usize>();
    }

    pub(crate) fn columns(&self) -> &[ColumnBuffer] {
        &self.columns
    }

    /// The table and columns of the batch.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no row; the pipeline never writes such a batch.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the rows take in the byte budget.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Shows table and size, never a value.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("table", self.schema.table())
            .field("len", &self.len)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// A range of the rows of a batch. Copying, slicing and splitting it copies no row.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    batch: &'a Arc<Batch>,
    start: usize,
    end: usize,
}

impl<'a> Rows<'a> {
    /// Every row of the batch.
    pub fn all(batch: &'a Arc<Batch>) -> Self {
        Self { batch, start: 0, end: batch.len }
    }

    /// The batch that the rows are a part of.
    pub(crate) fn batch(&self) -> &'a Arc<Batch> {
        self.batch
    }

    /// The position of the first row in the batch.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// The table and columns of the rows.
    pub fn schema(&self) -> &'a Schema {
        &self.batch.schema
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Bytes that the rows take in the byte budget.
    pub fn bytes(&self) -> usize {
        if self.len() == self.batch.len {
            return self.batch.bytes;
        }
        let variable = |column: &ColumnBuffer| column.view(self.start..self.end).variable_len();
        self.len() * self.schema().fixed_row_len() + self.batch.columns.iter().map(variable).sum::<usize>()
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// A part of the rows, by index within this view.
    ///
    /// # Panics
    /// When the range is not within `0..len`.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "slice {range:?} of {} rows", self.len());
        Self { batch: self.batch, start: self.start + range.start, end: self.start + range.end }
    }

    /// The first `mid` rows and the others.
    ///
    /// # Panics
    /// When `mid` is above `len`.
    pub fn split_at(&self, mid: usize) -> (Self, Self) {
        (self.slice(0..mid), self.slice(mid..self.len()))
    }

    /// Typed access to one column over these rows.
    ///
    /// # Panics
    /// When there is no column `index`.
    pub fn column(&self, index: usize) -> ColumnView<'a> {
        self.batch.columns[index].view(self.start..self.end)
    }

    /// One of the rows.
    ///
    /// # Panics
    /// When `row` is not below [`len`](Self::len).
    pub fn row(&self, row: usize) -> RowView<'a> {
        assert!(row < self.len(), "row {row} of {} rows", self.len());
        RowView { batch: self.batch, row: self.start + row }
    }

    /// Row by row access.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RowView<'a>> + use<'a> {
        let batch = self.batch;
        (self.start..self.end).map(move |row| RowView { batch, row })
    }

    /// A copy of some of these rows, in the order given.
    ///
    /// # Panics
    /// When a number in `rows` is not below [`len`](Self::len).
    pub fn gather(&self, rows: &[u32]) -> SharedRows {
        let place = |row: &u32| {
            assert!((*row as usize) < self.len(), "row {row} of {} rows", self.len());
            self.start as u32 + row
        };
        let places: Vec<u32> = rows.iter().map(place).collect();
        let batch = Arc::new(self.batch.gather(&places));
        SharedRows { start: 0, end: batch.len, batch }
    }

    /// The same rows without a borrow, for drivers that write on another thread. Copies no row.
    pub fn to_shared(&self) -> SharedRows {
        SharedRows { batch: Arc::clone(self.batch), start: self.start, end: self.end }
    }
}

/// [`Rows`] that own their batch.
#[derive(Debug, Clone)]
pub struct SharedRows {
    batch: Arc<Batch>,
    start: usize,
    end: usize,
}

impl SharedRows {
    /// Every row of the batch.
    pub(crate) fn all(batch: Arc<Batch>) -> Self {
        Self { start: 0, end: batch.len, batch }
    }

    /// The rows as a view.
    pub fn rows(&self) -> Rows<'_> {
        Rows { batch: &self.batch, start: self.start, end: self.end }
    }
}

/// One row of a batch.
#[derive(Debug, Clone, Copy)]
pub struct RowView<'a> {
    batch: &'a Arc<Batch>,
    row: usize,
}

impl<'a> RowView<'a> {
    /// The table and columns of the row.
    pub fn schema(&self) -> &'a Schema {
        &self.batch.schema
    }

    /// The value of column `index`.
    ///
    /// # Panics
    /// When there is no column `index`.
    pub fn get(&self, index: usize) -> ValueRef<'a> {
        self.batch.columns[index].view(self.row..self.row + 1).get(0)
    }

    /// The values in column order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = ValueRef<'a>> + use<'a> {
        let Self { batch, row } = *self;
        batch.columns.iter().map(move |column| column.view(row..row + 1).get(0))
    }
}
