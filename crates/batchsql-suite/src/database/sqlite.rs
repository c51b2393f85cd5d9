//! Owns SQLite as a database under test: a temporary file by default.
//! Must not know cases.

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::exhaustive::Type;
use batchsql::sqlite::rusqlite;
use batchsql::sqlite::rusqlite::types::{Value, ValueRef};
use batchsql::sqlite::{SqliteOptions, SqliteSink};
use batchsql::{ColumnType, DynSink, Schema};
use batchsql_sql::quote;

use super::Visitor;
use super::sql::Spelling;
use super::sql_database::SqlDatabase;
use crate::digest::Canonical;
use crate::report::DatabaseInfo;

/// An SQLite database.
#[derive(Debug)]
pub struct Sqlite {
    sink: SqliteSink,
    /// Removed with everything in it when the suite ends.
    _temporary: Option<tempfile::TempDir>,
}

impl Sqlite {
    /// Opens the database of the DSN, or a temporary file.
    ///
    /// # Errors
    /// The DSN is invalid, or the database cannot be opened.
    pub fn open(dsn: Option<&str>) -> Result<Self> {
        if let Some(dsn) = dsn {
            let sink = SqliteSink::open(dsn).context("SQLITE_DSN or --sqlite-dsn")?;
            return Ok(Self { sink, _temporary: None });
        }
        let temporary = tempfile::Builder::new()
            .prefix("batchsql-suite-")
            .tempdir()
            .context("cannot create a temporary folder for the database; set TMPDIR or pass --sqlite-dsn")?;
        let sink = SqliteSink::with_options(&SqliteOptions::file(temporary.path().join("suite.db")))?;
        Ok(Self { sink, _temporary: Some(temporary) })
    }
}

const SPELLING: Spelling = Spelling { quote, declared, tail: "" };

fn declared(ty: ColumnType, _: bool) -> &'static str {
    match ty.exhaustive() {
        Type::Bool | Type::I16 | Type::I32 | Type::I64 | Type::U64 => "INTEGER",
        Type::F32 | Type::F64 => "REAL",
        Type::Bytes | Type::Uuid => "BLOB",
        Type::Decimal | Type::Text | Type::Json | Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz => {
            "TEXT"
        }
    }
}

#[async_trait]
impl SqlDatabase for Sqlite {
    const SPELLING: Spelling = SPELLING;

    async fn info(&self) -> Result<DatabaseInfo> {
        let version = self.sink.call(|conn| conn.query_row("SELECT sqlite_version()", [], |row| row.get(0))).await?;
        let location = match (self.sink.path(), &self._temporary) {
            (None, _) => "in memory",
            (Some(_), Some(_)) => "temporary file",
            (Some(_), None) => "file",
        };
        Ok(DatabaseInfo { name: "sqlite".to_owned(), version, location: location.to_owned() })
    }

    fn sink(&self) -> DynSink {
        DynSink::new(self.sink.clone())
    }

    async fn run(&self, statements: Vec<String>) -> Result<()> {
        Ok(self.sink.call(move |conn| conn.execute_batch(&statements.join(";"))).await?)
    }

    async fn read(&self, schema: &Schema, visit: Visitor<'_>) -> Result<()> {
        let types: Vec<ColumnType> = schema.columns().iter().map(|column| column.column_type()).collect();
        let sql = SPELLING.select(schema, |column, _| column.to_owned());
        // The connection is on a thread of its own and the visitor is not `Send` to it, so rows come back in pages.
        let mut last = None;
        loop {
            let page = page(&self.sink, &sql, last, types.len()).await?;
            let Some((row_id, _)) = page.last() else { return Ok(()) };
            last = Some(*row_id);
            for (_, values) in &page {
                let values: Vec<Canonical<'_>> =
                    values.iter().zip(&types).map(|(value, ty)| canonical(value.into(), *ty)).collect();
                visit(&values);
            }
        }
    }
}

/// Rows of one page.
const PAGE: usize = 5_000;

/// The rows after a row id, with their row ids.
async fn page(sink: &SqliteSink, sql: &str, after: Option<i64>, columns: usize) -> Result<Vec<(i64, Vec<Value>)>> {
    let sql = sql.replacen("SELECT ", "SELECT rowid,", 1);
    let sql = format!("{sql} WHERE rowid > ?1 OR ?1 IS NULL ORDER BY rowid LIMIT {PAGE}");
    let page = sink.call(move |conn| {
        let mut statement = conn.prepare(&sql)?;
        let rows = statement.query_map([after], |row| {
            let values = (1..=columns).map(|column| row.get(column)).collect::<rusqlite::Result<_>>()?;
            Ok((row.get(0)?, values))
        })?;
        rows.collect::<rusqlite::Result<_>>()
    });
    Ok(page.await?)
}

fn canonical(value: ValueRef<'_>, ty: ColumnType) -> Canonical<'_> {
    match value {
        ValueRef::Null => Canonical::Null,
        // A float without a fraction may be stored as an integer.
        ValueRef::Integer(v) if matches!(ty, ColumnType::F32 | ColumnType::F64) => Canonical::Float(v as f64),
        ValueRef::Integer(v) => Canonical::Int(v.into()),
        ValueRef::Real(v) => Canonical::Float(v),
        // Bytes that are not UTF-8 never equal a text: the digests differ, as intended.
        ValueRef::Text(v) => std::str::from_utf8(v).map_or(Canonical::Bytes(v), |text| Canonical::of_text(text, ty)),
        ValueRef::Blob(v) => Canonical::Bytes(v),
    }
}
