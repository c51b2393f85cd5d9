//! Owns how a stored block becomes rows of the program's schema.
//! Must not know the pipeline.

use batchsql_core::{ColumnBuilder, RowError, SharedRows, StopReason};

use crate::block::rows::read;
use crate::block::{Unreadable, schema_record};
use crate::key::{KeyOrder, OrderedTables};
use crate::schemas::{Resolved, Schemas, Unresolved};
use crate::source::SourceBlock;

/// The rows of a block, as columns.
#[derive(Debug)]
pub(crate) struct StoredRows {
    /// The sequence of the first row.
    pub(crate) first: u64,
    pub(crate) rows: SharedRows,
    /// Which of them keep their order.
    pub(crate) order: KeyOrder,
}

impl StoredRows {
    pub(crate) fn len(&self) -> usize {
        self.rows.rows().len()
    }

    /// The sequence of the last row.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.len() as u64 - 1
    }
}

/// Why a block does not become rows.
#[derive(Debug, Clone)]
pub(crate) enum NoRows {
    /// Another schema may help.
    Unresolved(Unresolved),
    /// Nothing in this process helps.
    Unusable(StopReason, String),
}

/// Why a value of a block is not in its rows.
enum NoValue {
    Unreadable(Unreadable),
    Row(usize, RowError),
}

impl From<Unreadable> for NoValue {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error)
    }
}

/// The rows of a block.
pub(crate) fn rows_of(block: &SourceBlock, schemas: &Schemas, ordered: &OrderedTables) -> Result<StoredRows, NoRows> {
    if let Some(rows) = &block.rows
        && !rows.rows().is_empty()
    {
        let order = KeyOrder::of(rows.rows().schema(), ordered);
        return Ok(StoredRows { first: block.first, rows: rows.clone(), order });
    }
    let bytes = block.schema.as_deref().ok_or(NoRows::Unresolved(Unresolved::Lost))?;
    let Resolved { schema, places } = schemas.resolve(bytes).map_err(NoRows::Unresolved)?;
    let logged = schema_record::decode(bytes).map_err(|error| NoRows::Unresolved(error.into()))?;
    let columns: Vec<_> = logged.columns.iter().map(|column| (column.ty, column.is_nullable)).collect();
    let first = block.first;
    if block.count == 0 {
        let text = format!("the block at {first} has no rows, which is a defect of its source");
        return Err(NoRows::Unusable(StopReason::Unreadable, text));
    }
    let misfit = |row: usize, error: &RowError| {
        let sequence = first + row as u64;
        let text = format!("row {sequence} does not fit the schema of the program: {error}; correct the schema");
        NoRows::Unusable(StopReason::Schema, text)
    };
    // The numbers of the columns, by those of the stored ones.
    let mut numbers = vec![0; columns.len()];
    places.iter().enumerate().for_each(|(number, place)| numbers[*place] = number);
    let mut rows = ColumnBuilder::new(&schema, block.count as usize);
    let put = |column: usize, row: usize, value: batchsql_core::ValueRef<'_>| {
        rows.push(numbers[column], value).map_err(|error| NoValue::Row(row, error))
    };
    read(&columns, block.count, &block.bytes, put).map_err(|error| match error {
        NoValue::Unreadable(error) => {
            let text = format!("the block of rows {first} to {} cannot be read: {error}", block.last());
            NoRows::Unusable(StopReason::Unreadable, text)
        }
        NoValue::Row(row, error) => misfit(row, &error),
    })?;
    let rows = rows.finish().map_err(|error| misfit(0, &error))?;
    Ok(StoredRows { first, rows, order: KeyOrder::of(&schema, ordered) })
}
