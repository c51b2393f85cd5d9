//! Owns what a case needs of a database: tables, a sink, and the reading back of every row.
//! Must not know any database; each has a file of its own.

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::{ColumnType, DynSink, Schema};

use super::table::TableSpec;
use crate::digest::{Canonical, Digest};
use crate::report::DatabaseInfo;

/// Is shown every row of a table, value by value in the order of the schema.
pub type Visitor<'a> = &'a mut (dyn FnMut(&[Canonical<'_>]) + Send);

/// A database under test.
#[async_trait]
pub trait Database: Send + Sync {
    /// What it is, for the report.
    async fn info(&self) -> Result<DatabaseInfo>;

    /// A sink that writes to it.
    fn sink(&self) -> DynSink;

    /// Makes an empty table, in place of an earlier one.
    async fn create(&self, table: &TableSpec) -> Result<()>;

    /// Adds a nullable column to a table that is being written.
    async fn add_column(&self, schema: &Schema, column: &str, ty: ColumnType) -> Result<()>;

    /// Removes a column from a table that is being written.
    async fn drop_column(&self, schema: &Schema, column: &str) -> Result<()>;

    /// Shows every row of a table, in any order.
    async fn read(&self, schema: &Schema, visit: Visitor<'_>) -> Result<()>;

    /// Removes a table.
    async fn drop_table(&self, schema: &Schema) -> Result<()>;

    /// The checksum over every row of a table.
    async fn digest(&self, schema: &Schema) -> Result<Digest> {
        let mut digest = Digest::default();
        let mut add = |values: &[Canonical<'_>]| digest.add_canonical(values.iter().copied());
        let read = self.read(schema, &mut add).await;
        read.with_context(|| format!("cannot read table {} back", schema.table_display()))?;
        Ok(digest)
    }
}
