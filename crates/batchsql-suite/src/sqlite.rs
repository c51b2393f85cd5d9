//! Owns SQLite as a database under test: a temporary file by default.
//! Must not know cases.

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::sqlite::rusqlite::types::ValueRef;
use batchsql::sqlite::{SqliteOptions, SqliteSink};
use batchsql::{ColumnType, DynSink, Schema};
use batchsql_sql::quote;

use crate::database::{Database, TableSpec};
use crate::digest::{Canonical, Digest, RowDigest};
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
    /// The DSN makes no sense or the database cannot be opened.
    pub fn open(dsn: Option<&str>) -> Result<Self> {
        if let Some(dsn) = dsn {
            let sink = SqliteSink::open(dsn).context("SQLITE_DSN or --sqlite-dsn")?;
            return Ok(Self { sink, _temporary: None });
        }
        let temporary = tempfile::Builder::new()
            .prefix("batchsql-suite-")
            .tempdir()
            .context("cannot make a temporary folder for the database; set TMPDIR or give --sqlite-dsn")?;
        let sink = SqliteSink::with_options(&SqliteOptions::file(temporary.path().join("suite.db")))?;
        Ok(Self { sink, _temporary: Some(temporary) })
    }
}

fn declared(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Bool | ColumnType::I16 | ColumnType::I32 | ColumnType::I64 | ColumnType::U64 => "INTEGER",
        ColumnType::F32 | ColumnType::F64 => "REAL",
        ColumnType::Bytes | ColumnType::Uuid => "BLOB",
        _ => "TEXT",
    }
}

fn create_sql(table: &TableSpec) -> String {
    let name = table.schema.table().name();
    let mut parts: Vec<String> = Vec::new();
    for column in table.schema.columns() {
        let not_null = if column.is_nullable() { "" } else { " NOT NULL" };
        parts.push(format!("{} {}{not_null}", quote(column.name()), declared(column.column_type())));
    }
    let key: Vec<String> = table.primary_key.iter().map(|name| quote(name)).collect();
    parts.push(format!("PRIMARY KEY ({})", key.join(",")));
    let mut sql = format!("DROP TABLE IF EXISTS {0}; CREATE TABLE {0} ({1});", quote(name), parts.join(","));
    for column in table.indexes {
        let index = quote(&format!("{name}_{column}"));
        sql += &format!(" CREATE INDEX {index} ON {} ({});", quote(name), quote(column));
    }
    sql
}

#[async_trait]
impl Database for Sqlite {
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

    async fn create(&self, table: &TableSpec) -> Result<()> {
        let sql = create_sql(table);
        let name = table.schema.table_display();
        self.sink
            .call(move |conn| conn.execute_batch(&sql))
            .await
            .with_context(|| format!("cannot create table {name}"))
    }

    async fn digest(&self, schema: &Schema) -> Result<Digest> {
        let types: Vec<ColumnType> = schema.columns().iter().map(|column| column.column_type()).collect();
        let columns: Vec<String> = schema.columns().iter().map(|column| quote(column.name())).collect();
        let sql = format!("SELECT {} FROM {}", columns.join(","), quote(schema.table().name()));
        let digest = self.sink.call(move |conn| {
            let mut statement = conn.prepare(&sql)?;
            let mut rows = statement.query([])?;
            let mut digest = Digest::default();
            while let Some(row) = rows.next()? {
                let mut row_digest = RowDigest::default();
                for (index, ty) in types.iter().enumerate() {
                    row_digest.add(canonical(row.get_ref(index)?, *ty));
                }
                digest.add(&row_digest);
            }
            Ok(digest)
        });
        digest.await.with_context(|| format!("cannot read table {} back", schema.table_display()))
    }

    async fn drop_table(&self, schema: &Schema) -> Result<()> {
        let sql = format!("DROP TABLE IF EXISTS {}", quote(schema.table().name()));
        Ok(self.sink.call(move |conn| conn.execute_batch(&sql)).await?)
    }
}

fn canonical(value: ValueRef<'_>, ty: ColumnType) -> Canonical<'_> {
    match value {
        ValueRef::Null => Canonical::Null,
        // A float without a fraction may be stored as an integer.
        ValueRef::Integer(v) if matches!(ty, ColumnType::F32 | ColumnType::F64) => Canonical::Float(v as f64),
        ValueRef::Integer(v) => Canonical::Int(v),
        ValueRef::Real(v) => Canonical::Float(v),
        // Bytes that are no text never equal a text: the digests differ, as they should.
        ValueRef::Text(v) => std::str::from_utf8(v).map_or(Canonical::Bytes(v), Canonical::Text),
        ValueRef::Blob(v) => Canonical::Bytes(v),
    }
}
