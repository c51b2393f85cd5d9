//! Owns how a stored block becomes rows of the program's schema.
//! Must not know the pipeline.

use batchsql_core::{DynRow, Row, Value};

use crate::block::rows::decode;
use crate::block::schema_record;
use crate::key::{self, KeyOrder, OrderedTables};
use crate::schemas::{Resolved, Schemas, Unresolved};
use crate::source::SourceBlock;

/// A row of a source.
#[derive(Debug)]
pub(crate) struct LoggedRow {
    pub(crate) sequence: u64,
    pub(crate) row: DynRow,
    pub(crate) key: Option<Vec<u8>>,
}

/// Why a block does not become rows.
#[derive(Debug, Clone)]
pub(crate) enum NoRows {
    /// Another schema may help.
    Unresolved(Unresolved),
    /// Nothing in this process helps.
    Unusable(String),
}

/// The rows of a block behind `settled`.
pub(crate) fn rows_of(
    block: &SourceBlock,
    schemas: &Schemas,
    settled: u64,
    ordered: &OrderedTables,
) -> Result<Vec<LoggedRow>, NoRows> {
    let bytes = block.schema.as_deref().ok_or(NoRows::Unresolved(Unresolved::Lost))?;
    let Resolved { schema, places } = schemas.resolve(bytes).map_err(NoRows::Unresolved)?;
    let logged = schema_record::decode(bytes).map_err(|error| NoRows::Unresolved(error.into()))?;
    let columns: Vec<_> = logged.columns.iter().map(|column| (column.ty, column.is_nullable)).collect();
    let first = block.first;
    let decoded = decode(&columns, block.count, &block.bytes).map_err(|error| {
        NoRows::Unusable(format!("the block of rows {first} to {} cannot be read: {error}", block.last()))
    })?;
    let order = KeyOrder::of(&schema, ordered);
    let mut rows = Vec::with_capacity(decoded.len());
    for (sequence, mut logged) in (first..).zip(decoded) {
        if sequence <= settled {
            continue;
        }
        let values: Vec<Value> =
            places.iter().map(|place| std::mem::replace(&mut logged[*place], Value::Null)).collect();
        let key = key::of_values(&values, &order);
        let row = schema.row().set_all(values).and_then(|row| row.finish()).map_err(|error| {
            NoRows::Unusable(format!(
                "row {sequence} does not fit the schema of the program: {error}; correct the schema"
            ))
        })?;
        debug_assert_eq!(row.schema(), &schema, "a row with all of its columns has its schema");
        rows.push(LoggedRow { sequence, row, key });
    }
    Ok(rows)
}
