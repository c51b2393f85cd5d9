//! Owns what a case needs of a database: tables, a sink, and the reading back of every row.
//! Must not know any database; each has a file of its own.

use anyhow::Result;
use async_trait::async_trait;
use batchsql::{DynSink, Schema};

use crate::cli::{DatabaseName, Options};
use crate::digest::Digest;
use crate::report::DatabaseInfo;
use crate::sqlite::Sqlite;

/// A table that a case writes to.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Its columns.
    pub schema: Schema,
    /// The columns of its primary key.
    pub primary_key: &'static [&'static str],
    /// Columns with an index of their own.
    pub indexes: &'static [&'static str],
}

/// A database under test.
#[async_trait]
pub trait Database: Send + Sync {
    /// What it is, for the report.
    async fn info(&self) -> Result<DatabaseInfo>;

    /// A sink that writes to it.
    fn sink(&self) -> DynSink;

    /// Makes an empty table, in place of an earlier one.
    async fn create(&self, table: &TableSpec) -> Result<()>;

    /// Reads every row of a table back.
    async fn digest(&self, schema: &Schema) -> Result<Digest>;

    /// Removes a table.
    async fn drop_table(&self, schema: &Schema) -> Result<()>;
}

/// Opens a database as the options say.
///
/// # Errors
/// It cannot be opened; the message shows no password.
pub async fn open(name: DatabaseName, options: &Options) -> Result<Box<dyn Database>> {
    match name {
        DatabaseName::Sqlite => Ok(Box::new(Sqlite::open(options.sqlite_dsn.as_deref())?)),
    }
}
