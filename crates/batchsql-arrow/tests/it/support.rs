//! Owns what the tests share: batches and tables of one column, and a database that refuses some values.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Field, SchemaRef};
use batchsql_arrow::{MappedRows, Mapping, MappingError};
use batchsql_core::{
    Attempt, ColumnType, FieldRules, Limits, Rows, Schema, Sink, SinkError, Value, ValueRules, Written,
};

/// A batch of named columns.
pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let fields: SchemaRef = Arc::new(arrow_schema::Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    RecordBatch::try_new(fields, columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

/// Maps a batch of the column `v`.
pub(crate) fn map(array: ArrayRef, ty: ColumnType) -> Result<MappedRows, MappingError> {
    let schema = Schema::builder("t").nullable("v", ty).build().unwrap();
    let rows = array.len();
    let batch = batch(vec![("v", array)]);
    Mapping::new(&schema, batch.schema_ref(), FieldRules::default())?.rows(&batch, 0..rows)
}

/// The values of the column, and the numbers and reasons of the rows that are refused.
pub(crate) fn values(array: ArrayRef, ty: ColumnType) -> (Vec<Value>, Vec<(usize, String)>) {
    let mapped = map(array, ty).unwrap();
    let values = mapped.rows.rows().iter().map(|row| row.get(0).to_value()).collect();
    (values, mapped.refused.into_iter().map(|refused| (refused.row, refused.error.to_string())).collect())
}

/// A database that has neither NaN nor infinities, and takes one column.
pub(crate) struct Strict;

impl Sink for Strict {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "strict"
    }

    fn limits(&self, _: &Schema) -> Limits {
        let rules = ValueRules { refuse_nan: true, refuse_infinity: true, ..ValueRules::default() };
        Limits::default().with_max_columns(1).with_values(rules)
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), _: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        Ok(Written::default())
    }
}
