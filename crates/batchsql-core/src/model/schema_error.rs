//! Owns the error of an invalid schema declaration.
//! Must not know what is checked.

use crate::model::table_name::TableName;

/// A schema declaration is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema of table {table:?}: {problem}")]
pub struct SchemaError {
    table: String,
    problem: String,
}

impl SchemaError {
    pub(crate) fn new(table: &TableName, problem: String) -> Self {
        Self { table: table.to_string(), problem }
    }

    /// What is wrong, without the table.
    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }

    /// The table the schema is about.
    pub fn table(&self) -> &str {
        &self.table
    }
}
