//! Owns PostgreSQL as a database under test.
//! Must not know cases.

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::exhaustive::Type;
use batchsql::postgres::PostgresSink;
use batchsql::{ColumnType, DynSink, Schema};
use batchsql_sql::quote;
use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{Executor, Row, ValueRef};

use super::Visitor;
use super::sql::Spelling;
use super::sql_database::SqlDatabase;
use crate::digest::Canonical;
use crate::report::DatabaseInfo;

/// A PostgreSQL database.
#[derive(Debug)]
pub struct Postgres {
    sink: PostgresSink,
}

const SPELLING: Spelling = Spelling { quote, declared, tail: "" };

fn declared(ty: ColumnType, _: bool) -> &'static str {
    match ty.exhaustive() {
        Type::Bool => "BOOLEAN",
        Type::I16 => "SMALLINT",
        Type::I32 => "INTEGER",
        Type::I64 => "BIGINT",
        Type::U64 => "NUMERIC(20)",
        Type::F32 => "REAL",
        Type::F64 => "DOUBLE PRECISION",
        Type::Decimal => "NUMERIC",
        Type::Bytes => "BYTEA",
        Type::Uuid => "UUID",
        Type::Json => "JSONB",
        Type::Date => "DATE",
        Type::Time => "TIME",
        Type::Timestamp => "TIMESTAMP",
        Type::TimestampTz => "TIMESTAMPTZ",
        Type::Text => "TEXT",
    }
}

/// The form in which a column is read; calendar values as the driver-independent ISO 8601.
fn expression(column: &str, ty: ColumnType) -> String {
    match ty.exhaustive() {
        Type::U64 | Type::Decimal | Type::Json => format!("{column}::text"),
        Type::Date => format!("to_char({column},'YYYY-MM-DD')"),
        Type::Time => format!("to_char({column},'HH24:MI:SS.US')"),
        Type::Timestamp => format!("to_char({column},'YYYY-MM-DD HH24:MI:SS.US')"),
        Type::TimestampTz => {
            format!("to_char({column} AT TIME ZONE 'UTC','YYYY-MM-DD HH24:MI:SS.US')||'+00:00'")
        }
        Type::Bool
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::F32
        | Type::F64
        | Type::Text
        | Type::Bytes
        | Type::Uuid => column.to_owned(),
    }
}

fn canonical(row: &PgRow, index: usize, ty: ColumnType) -> Result<Canonical<'_>> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Canonical::Null);
    }
    Ok(match ty.exhaustive() {
        Type::Bool => Canonical::Int(row.try_get::<bool, _>(index)?.into()),
        Type::I16 => Canonical::Int(row.try_get::<i16, _>(index)?.into()),
        Type::I32 => Canonical::Int(row.try_get::<i32, _>(index)?.into()),
        Type::I64 => Canonical::Int(row.try_get::<i64, _>(index)?.into()),
        Type::U64 => Canonical::Int(row.try_get::<&str, _>(index)?.parse()?),
        Type::F32 => Canonical::Float(row.try_get::<f32, _>(index)?.into()),
        Type::F64 => Canonical::Float(row.try_get(index)?),
        Type::Bytes => Canonical::Bytes(row.try_get(index)?),
        // The binary form of a uuid is its 16 bytes.
        Type::Uuid => Canonical::Bytes(raw.as_bytes().map_err(anyhow::Error::from_boxed)?),
        Type::Decimal | Type::Text | Type::Json | Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz => {
            Canonical::of_text(row.try_get(index)?, ty)
        }
    })
}

impl Postgres {
    /// Opens the database of the DSN.
    ///
    /// # Errors
    /// The DSN is invalid, or the connection fails.
    pub async fn open(dsn: &str) -> Result<Self> {
        let sink = PostgresSink::connect(dsn).await.context("POSTGRES_DSN or --postgres-dsn")?;
        Ok(Self { sink })
    }

    /// Runs a statement of the test itself.
    ///
    /// # Errors
    /// The error of the server.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.sink.pg_pool().execute(sql).await?;
        Ok(())
    }
}

#[async_trait]
impl SqlDatabase for Postgres {
    const SPELLING: Spelling = SPELLING;

    async fn info(&self) -> Result<DatabaseInfo> {
        let version: String = sqlx::query_scalar("SHOW server_version").fetch_one(self.sink.pg_pool()).await?;
        Ok(DatabaseInfo { name: "postgres".to_owned(), version, location: "server".to_owned() })
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
        let mut rows = sqlx::query(&sql).persistent(false).fetch(self.sink.pg_pool());
        while let Some(row) = rows.try_next().await? {
            let values = types.iter().enumerate().map(|(index, ty)| canonical(&row, index, *ty));
            visit(&values.collect::<Result<Vec<_>>>()?);
        }
        Ok(())
    }
}
