//! Owns what is the same for every database with SQL: its tables are changed by statements.
//! Must not know how a statement is run.

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::{ColumnType, DynSink, Schema};

use super::interface::{Database, Visitor};
use super::sql::Spelling;
use crate::report::DatabaseInfo;
use crate::table_spec::TableSpec;

/// A database with SQL under test. The methods beside `run` are those of [`Database`].
#[async_trait]
pub(super) trait SqlDatabase: Send + Sync {
    const SPELLING: Spelling;

    async fn info(&self) -> Result<DatabaseInfo>;

    fn sink(&self) -> DynSink;

    /// Runs statements in order.
    async fn run(&self, statements: Vec<String>) -> Result<()>;

    async fn read(&self, schema: &Schema, visit: Visitor<'_>) -> Result<()>;
}

#[async_trait]
impl<D: SqlDatabase> Database for D {
    async fn info(&self) -> Result<DatabaseInfo> {
        SqlDatabase::info(self).await
    }

    fn sink(&self) -> DynSink {
        SqlDatabase::sink(self)
    }

    async fn create(&self, table: &TableSpec) -> Result<()> {
        let name = table.schema.table_display();
        self.run(D::SPELLING.create(table)).await.with_context(|| format!("cannot create table {name}"))
    }

    async fn add_column(&self, schema: &Schema, column: &str, ty: ColumnType) -> Result<()> {
        self.run(vec![D::SPELLING.add_column(schema, column, ty)]).await
    }

    async fn drop_column(&self, schema: &Schema, column: &str) -> Result<()> {
        self.run(vec![D::SPELLING.drop_column(schema, column)]).await
    }

    async fn read(&self, schema: &Schema, visit: Visitor<'_>) -> Result<()> {
        SqlDatabase::read(self, schema, visit).await
    }

    async fn drop_table(&self, schema: &Schema) -> Result<()> {
        self.run(vec![D::SPELLING.drop_table(schema)]).await
    }
}
