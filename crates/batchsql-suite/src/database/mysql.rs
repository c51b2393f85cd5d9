//! Owns MySQL and MariaDB as a database under test.
//! Must not know cases.

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::exhaustive::Type;
use batchsql::mysql::MySqlSink;
use batchsql::{ColumnType, DynSink, Schema};
use batchsql_sql::mysql::quote;
use futures_util::TryStreamExt;
use sqlx::mysql::MySqlRow;
use sqlx::{Executor, Row, ValueRef};

use super::Visitor;
use super::sql::Spelling;
use super::sql_database::SqlDatabase;
use crate::digest::Canonical;
use crate::report::DatabaseInfo;

/// A MySQL or MariaDB database.
#[derive(Debug)]
pub struct MySql {
    sink: MySqlSink,
}

/// `utf8mb4_bin`, so that keys compare as in the other databases.
const SPELLING: Spelling =
    Spelling { quote, declared, tail: " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin" };

fn declared(ty: ColumnType, indexed: bool) -> &'static str {
    match ty.exhaustive() {
        Type::Bool => "BOOLEAN",
        Type::I16 => "SMALLINT",
        Type::I32 => "INT",
        Type::I64 => "BIGINT",
        Type::U64 => "BIGINT UNSIGNED",
        Type::F32 => "FLOAT",
        Type::F64 => "DOUBLE",
        Type::Decimal => "DECIMAL(65,30)",
        Type::Bytes if indexed => "VARBINARY(255)",
        Type::Bytes => "LONGBLOB",
        Type::Uuid => "BINARY(16)",
        Type::Json => "JSON",
        Type::Date => "DATE",
        Type::Time => "TIME(6)",
        Type::Timestamp | Type::TimestampTz => "DATETIME(6)",
        // An index needs a length.
        Type::Text if indexed => "VARCHAR(255)",
        Type::Text => "LONGTEXT",
    }
}

/// The form in which a column is read; calendar values as the driver-independent ISO 8601.
fn expression(column: &str, ty: ColumnType) -> String {
    match ty.exhaustive() {
        Type::TimestampTz => format!("CONCAT(CAST({column} AS CHAR),'+00:00')"),
        Type::Decimal | Type::Json | Type::Date | Type::Time | Type::Timestamp => {
            format!("CAST({column} AS CHAR)")
        }
        Type::Bool
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::U64
        | Type::F32
        | Type::F64
        | Type::Text
        | Type::Bytes
        | Type::Uuid => column.to_owned(),
    }
}

fn canonical(row: &MySqlRow, index: usize, ty: ColumnType) -> Result<Canonical<'_>> {
    if row.try_get_raw(index)?.is_null() {
        return Ok(Canonical::Null);
    }
    Ok(match ty.exhaustive() {
        Type::Bool => Canonical::Int(row.try_get::<bool, _>(index)?.into()),
        Type::I16 => Canonical::Int(row.try_get::<i16, _>(index)?.into()),
        Type::I32 => Canonical::Int(row.try_get::<i32, _>(index)?.into()),
        Type::I64 => Canonical::Int(row.try_get::<i64, _>(index)?.into()),
        Type::U64 => Canonical::Int(row.try_get::<u64, _>(index)?.into()),
        Type::F32 => Canonical::Float(row.try_get::<f32, _>(index)?.into()),
        Type::F64 => Canonical::Float(row.try_get(index)?),
        Type::Bytes | Type::Uuid => Canonical::Bytes(row.try_get(index)?),
        // Unchecked, because sqlx treats text with a binary collation as bytes.
        Type::Decimal | Type::Text | Type::Json | Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz => {
            Canonical::of_text(row.try_get_unchecked(index)?, ty)
        }
    })
}

impl MySql {
    /// Opens the database of the DSN.
    ///
    /// # Errors
    /// The DSN is invalid, or the connection fails.
    pub async fn open(dsn: &str) -> Result<Self> {
        let sink = MySqlSink::connect(dsn).await.context("MYSQL_DSN or --mysql-dsn")?;
        Ok(Self { sink })
    }

    /// Makes the server keep what it has committed, which exactly once needs. The servers of xtask are faster without.
    ///
    /// # Errors
    /// The right to change a setting of the server is missing.
    pub async fn keep_commits(&self) -> Result<()> {
        let set = self.sink.mysql_pool().execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1").await;
        set.context("exactly once needs innodb_flush_log_at_trx_commit = 1; set it, or name a user who may").map(drop)
    }

    /// Runs a statement of the test itself.
    ///
    /// # Errors
    /// The error of the server.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.sink.mysql_pool().execute(sql).await?;
        Ok(())
    }
}

#[async_trait]
impl SqlDatabase for MySql {
    const SPELLING: Spelling = SPELLING;

    async fn info(&self) -> Result<DatabaseInfo> {
        let version: String = sqlx::query_scalar("SELECT version()").fetch_one(self.sink.mysql_pool()).await?;
        Ok(DatabaseInfo { name: "mysql".to_owned(), version, location: "server".to_owned() })
    }

    fn sink(&self) -> DynSink {
        DynSink::new(self.sink.clone())
    }

    async fn run(&self, statements: Vec<String>) -> Result<()> {
        for statement in statements {
            self.execute(&statement).await?;
        }
        Ok(())
    }

    async fn read(&self, schema: &Schema, visit: Visitor<'_>) -> Result<()> {
        let types: Vec<ColumnType> = schema.columns().iter().map(|column| column.column_type()).collect();
        let sql = SPELLING.select(schema, expression);
        let mut rows = sqlx::query(&sql).persistent(false).fetch(self.sink.mysql_pool());
        while let Some(row) = rows.try_next().await? {
            let values = types.iter().enumerate().map(|(index, ty)| canonical(&row, index, *ty));
            visit(&values.collect::<Result<Vec<_>>>()?);
        }
        Ok(())
    }
}
