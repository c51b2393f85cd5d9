//! Owns the description of a table that a case writes to.
//! Must not know the SQL of a database.

use batchsql::Schema;

/// A table that a case writes to.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Its columns.
    pub schema: Schema,
    /// The columns of its primary key.
    pub primary_key: &'static [&'static str],
    /// Columns with an index of their own.
    pub indexes: &'static [&'static str],
    /// Further unique indexes.
    pub unique: &'static [&'static [&'static str]],
}

impl TableSpec {
    /// A table without further indexes.
    pub fn new(schema: Schema, primary_key: &'static [&'static str]) -> Self {
        Self { schema, primary_key, indexes: &[], unique: &[] }
    }
}
