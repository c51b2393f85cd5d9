//! Owns rows that are built at run time.
//! Must not know batches or databases.

use std::fmt;

use crate::model::batch::{Batch, Rows};
use crate::model::column::Column;
use crate::model::schema::Schema;
use crate::model::value::{Value, ValueRef};
use crate::row::error::RowError;
use crate::row::key::KeyHasher;
use crate::row::traits::Row;
use crate::row::writer::RowWriter;

/// A row built at run time. Columns that were left out take the database's default on insert and are not changed by an
/// update.
#[derive(Clone, PartialEq)]
pub struct DynRow {
    schema: Schema,
    values: Box<[Value]>,
}

impl DynRow {
    pub(crate) fn new(schema: Schema, values: Box<[Value]>) -> Self {
        Self { schema, values }
    }

    /// Bytes of memory that the row takes when it is handed back: an owned value per column, and the outcome and the
    /// letter around it.
    pub(crate) fn memory(&self) -> usize {
        const AROUND: usize = 160;
        self.values.len() * size_of::<Value>() + self.variable_len() + AROUND
    }

    /// The value of a column; `None` when there is no such column or it was left out.
    pub fn get(&self, column: &str) -> Option<ValueRef<'_>> {
        self.schema.column_index(column).map(|index| self.values[index].as_ref())
    }

    /// Starts a changed copy: to correct a refused row and submit it again.
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

/// Shows the table and the columns, never a value: rows can reach logs through errors.
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

impl Schema {
    /// Starts a dynamic row of this table.
    pub fn row(&self) -> RowBuilder {
        RowBuilder::new(self.clone())
    }
}

impl Batch {
    /// An owned copy of one row.
    ///
    /// # Panics
    /// When `row` is not below [`len`](Self::len).
    pub fn row(&self, row: usize) -> DynRow {
        let values: Box<[Value]> =
            self.columns().iter().map(|column| column.view(row..row + 1).get(0).to_value()).collect();
        DynRow::new(self.schema().clone(), values)
    }
}

impl Rows<'_> {
    /// An owned copy of one row, by index within this view.
    ///
    /// # Panics
    /// When `row` is not below [`len`](Self::len).
    pub fn to_row(&self, row: usize) -> DynRow {
        assert!(row < self.len(), "row {row} of {} rows", self.len());
        self.batch().row(self.start() + row)
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

    /// Sets a column by name; setting it again overwrites. Integers of another width are accepted when the number fits,
    /// `f32` widens to `f64`, integers become decimals; nothing else is converted.
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
        if !present.contains(&true) {
            return Err(RowError::without_values(&schema));
        }
        let schema = schema.project(&present).map_err(|error| RowError::projection(&schema, &error))?;
        Ok(DynRow::new(schema, values.into_iter().flatten().collect()))
    }

    /// Sets a column by index; false if it was set before.
    pub(crate) fn set_new(&mut self, index: usize, value: Value) -> Result<bool, RowError> {
        let value = self.checked(index, value)?;
        Ok(self.values[index].replace(value).is_none())
    }

    /// The nullable columns that were not set become `NULL`.
    pub(crate) fn fill_with_null(mut self) -> Self {
        for (column, value) in self.schema.columns().iter().zip(&mut self.values) {
            if column.is_nullable() {
                value.get_or_insert(Value::Null);
            }
        }
        self
    }

    /// A column that was not set.
    pub(crate) fn first_missing(&self) -> Option<&Column> {
        let mut columns = self.schema.columns().iter().zip(&self.values);
        columns.find(|(_, value)| value.is_none()).map(|(column, _)| column)
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
                None => Err(RowError::type_mismatch(&self.schema, column, got.name())),
            },
        }
    }
}
