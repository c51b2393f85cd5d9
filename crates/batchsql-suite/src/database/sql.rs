//! Owns the SQL of the tables that cases write to, for every SQL database.
//! Must not know connections.

use batchsql::{ColumnType, Schema};

use super::TableSpec;

/// The SQL dialect of one database for tables.
pub(super) struct Spelling {
    pub(super) quote: fn(&str) -> String,
    /// The type of a column; the flag says whether it is part of an index.
    pub(super) declared: fn(ColumnType, bool) -> &'static str,
    /// The text after the list of columns.
    pub(super) tail: &'static str,
}

impl Spelling {
    /// Statements that create an empty table and replace an existing one.
    pub(super) fn create(&self, table: &TableSpec) -> Vec<String> {
        let (quote, name) = (self.quote, table.schema.table().name());
        let list = |columns: &[&str]| columns.iter().map(|name| quote(name)).collect::<Vec<_>>().join(",");
        let is_indexed = |column: &str| {
            let unique = table.unique.iter().any(|columns| columns.contains(&column));
            unique || table.primary_key.contains(&column) || table.indexes.contains(&column)
        };
        let mut parts: Vec<String> = Vec::new();
        for column in table.schema.columns() {
            let declared = (self.declared)(column.column_type(), is_indexed(column.name()));
            // Without NULL, MySQL would give the first TIMESTAMP column an automatic update.
            let null = if column.is_nullable() { "NULL" } else { "NOT NULL" };
            parts.push(format!("{} {declared} {null}", quote(column.name())));
        }
        parts.push(format!("PRIMARY KEY ({})", list(table.primary_key)));
        let (table_name, tail) = (quote(name), self.tail);
        let mut statements = vec![
            format!("DROP TABLE IF EXISTS {table_name}"),
            format!("CREATE TABLE {table_name} ({}){tail}", parts.join(",")),
        ];
        let index = |kind: &str, columns: &[&str]| {
            let index = quote(&format!("{name}_{}", columns.join("_")));
            format!("CREATE {kind} {index} ON {table_name} ({})", list(columns))
        };
        statements.extend(table.indexes.iter().map(|column| index("INDEX", &[*column])));
        statements.extend(table.unique.iter().map(|columns| index("UNIQUE INDEX", columns)));
        statements
    }

    pub(super) fn add_column(&self, schema: &Schema, column: &str, ty: ColumnType) -> String {
        let quote = self.quote;
        let declared = (self.declared)(ty, false);
        format!("ALTER TABLE {} ADD COLUMN {} {declared} NULL", quote(schema.table().name()), quote(column))
    }

    pub(super) fn drop_column(&self, schema: &Schema, column: &str) -> String {
        let quote = self.quote;
        format!("ALTER TABLE {} DROP COLUMN {}", quote(schema.table().name()), quote(column))
    }

    pub(super) fn drop_table(&self, schema: &Schema) -> String {
        let quote = self.quote;
        format!("DROP TABLE IF EXISTS {}", quote(schema.table().name()))
    }

    /// A query of every row; `expression` gives the form in which a column is read.
    pub(super) fn select(&self, schema: &Schema, expression: impl Fn(&str, ColumnType) -> String) -> String {
        let quote = self.quote;
        let columns = schema.columns().iter().map(|column| expression(&quote(column.name()), column.column_type()));
        format!("SELECT {} FROM {}", columns.collect::<Vec<_>>().join(","), quote(schema.table().name()))
    }
}
