//! Owns a table as its database describes it, and the schemas of rows for it.
//! Must not know how a database is asked.

use crate::model::conflict::Conflict;
use crate::model::schema::{Schema, SchemaBuilder};
use crate::model::table_name::TableName;
use crate::model::value::ColumnType;

/// A table as its database describes it, read by [`Sink::read_schema`](crate::Sink::read_schema). A schema of it needs a
/// conflict rule, which no database knows.
///
/// ```
/// use batchsql_core::{ColumnType, Conflict, TableSchema};
/// # let orders = TableSchema::new("orders".into()).with_column("id", ColumnType::I64, true)
/// #     .with_column("note", ColumnType::Text, false).with_key(["id"]);
/// // let orders = sink.read_schema(&"orders".into()).await?;
/// let schema = orders.builder(Conflict::update(orders.key())).build()?;
/// assert!(!schema.columns()[0].is_nullable());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    table: TableName,
    columns: Vec<FoundColumn>,
    key: Vec<String>,
    left_out: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FoundColumn {
    name: String,
    ty: ColumnType,
    needs_value: bool,
}

impl TableSchema {
    /// A table without columns: for sinks.
    pub fn new(table: TableName) -> Self {
        Self { table, columns: Vec::new(), key: Vec::new(), left_out: Vec::new() }
    }

    /// Adds a column that rows can carry. `needs_value`: it is `NOT NULL` and the database has no value of its own for
    /// it.
    #[must_use]
    pub fn with_column(mut self, name: impl Into<String>, ty: ColumnType, needs_value: bool) -> Self {
        self.columns.push(FoundColumn { name: name.into(), ty, needs_value });
        self
    }

    /// Adds a column that rows cannot carry, with the reason.
    #[must_use]
    pub fn with_left_out(mut self, name: impl Into<String>, why: impl Into<String>) -> Self {
        self.left_out.push((name.into(), why.into()));
        self
    }

    /// Sets the columns of the key, if rows can carry all of them.
    #[must_use]
    pub fn with_key<S: Into<String>>(mut self, key: impl IntoIterator<Item = S>) -> Self {
        let key: Vec<String> = key.into_iter().map(Into::into).collect();
        let is_carried = |name: &String| self.columns.iter().any(|column| column.name == *name);
        if key.iter().all(is_carried) {
            self.key = key;
        }
        self
    }

    /// The table.
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The columns of the primary key, or of the first other unique index; empty if there is none whose columns rows can
    /// carry.
    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// The columns that are not in the schema, with the reason: generated columns, and those with a type that cannot be
    /// written.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, &str)> {
        self.left_out.iter().map(|(name, why)| (&**name, &**why))
    }

    /// A schema of all columns that rows can carry, with this rule.
    ///
    /// A column is nullable, so that rows may leave it out, if the database needs no value for it: it allows `NULL`, or
    /// has a default or counts by itself. (`NULL` in a `NOT NULL` column with a default is refused by the database.) The
    /// columns of the rule's key are never nullable.
    pub fn builder(&self, conflict: Conflict) -> SchemaBuilder {
        let columns = self.columns.iter().fold(Schema::builder(self.table.clone()), |builder, column| {
            if column.needs_value || conflict.key().contains(&column.name) {
                builder.column(column.name.as_str(), column.ty)
            } else {
                builder.nullable(column.name.as_str(), column.ty)
            }
        });
        columns.on_conflict(conflict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_decides_which_columns_need_a_value() {
        let table = TableSchema::new("t".into())
            .with_column("id", ColumnType::I64, false)
            .with_column("code", ColumnType::Text, true)
            .with_left_out("sum", "it is generated")
            .with_key(["id"]);
        let nullable = |conflict| {
            let schema = table.builder(conflict).build().unwrap();
            schema.columns().iter().map(|column| column.is_nullable()).collect::<Vec<_>>()
        };
        assert_eq!(nullable(Conflict::none()), [true, false], "the database counts ids");
        assert_eq!(nullable(Conflict::update(table.key())), [false, false]);
        assert_eq!(table.left_out().collect::<Vec<_>>(), [("sum", "it is generated")]);
        assert!(table.clone().with_key(["code", "sum"]).key() == ["id"], "rows cannot carry this key");
    }
}
