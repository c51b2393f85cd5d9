//! Owns the interface of a database for cases: tables, a sink, and reading back every row.
//! Must not know any database; each has a file of its own.

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::{ColumnType, DynSink, Schema};

use crate::digest::{Canonical, Digest};
use crate::report::DatabaseInfo;
use crate::table_spec::TableSpec;

/// Receives every row of a table, its values in the order of the schema.
pub type Visitor<'a> = &'a mut (dyn FnMut(&[Canonical<'_>]) + Send);

/// A database under test.
#[async_trait]
pub trait Database: Send + Sync {
    /// Name, version and location, for the report.
    async fn info(&self) -> Result<DatabaseInfo>;

    /// A sink that writes to it.
    fn sink(&self) -> DynSink;

    /// Creates an empty table and replaces an existing one.
    async fn create(&self, table: &TableSpec) -> Result<()>;

    /// Adds a nullable column to a table that is being written.
    async fn add_column(&self, schema: &Schema, column: &str, ty: ColumnType) -> Result<()>;

    /// Removes a column from a table that is being written.
    async fn drop_column(&self, schema: &Schema, column: &str) -> Result<()>;

    /// Passes every row of a table to the visitor, in any order.
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
