//! Owns how the fields of Arrow batches are the columns of a table, with its defaults.
//! Must not know files.

use std::collections::BTreeMap;

use arrow_schema::SchemaRef;
use batchsql::arrow::Mapping;
use batchsql::{FieldRules, MissingFields, Value};

use crate::table::target::Target;

impl Target {
    /// Maps fields with the names of columns.
    ///
    /// # Errors
    /// The fields do not fit. The text says what to do.
    pub(crate) fn mapping(&self, fields: &SchemaRef) -> Result<Mapping, String> {
        let missing = |column: &&(String, serde_json::Value)| fields.index_of(&column.0).is_err();
        let defaults: Result<Vec<(String, Value)>, String> =
            self.defaults.iter().filter(missing).map(|(column, value)| self.default(column, value)).collect();
        Mapping::with_values(&self.schema, fields, self.rules, defaults?).map_err(|error| error.to_string())
    }

    /// A default as a value of its column.
    fn default(&self, column: &str, value: &serde_json::Value) -> Result<(String, Value), String> {
        let nullable = self.schema.columns().iter().map(|known| (known.name(), known.column_type()));
        let alone = nullable
            .filter(|(name, _)| *name == column)
            .fold(batchsql::Schema::builder(self.schema.table().clone()), |alone, (name, ty)| alone.nullable(name, ty));
        let alone = alone.build().map_err(|error| error.to_string())?;
        let row = BTreeMap::from([(column, value)]);
        let row = alone.row_from_with(&row, FieldRules::default().missing(MissingFields::Null));
        let row = row.map_err(|error| error.to_string())?;
        Ok((column.to_owned(), row.get(column).map_or(Value::Null, |value| value.to_value())))
    }
}
