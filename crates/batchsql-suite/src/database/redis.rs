//! Owns Redis as a database under test: a row is a hash or a JSON document under a key of its own.
//! Must not know cases.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::exhaustive::Type;
use batchsql::redis::{Command, Key, RedisOptions, RedisSink};
use batchsql::{ColumnType, DynSink, Schema, TypedRow};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client};
use serde_json::value::RawValue;

use super::{Database, TableSpec, Visitor};
use crate::digest::Canonical;
use crate::report::DatabaseInfo;
use crate::rows::{Event, SAMPLES};

/// Keys per request.
const PAGE: usize = 1_000;

/// A Redis server.
pub struct Redis {
    sink: RedisSink,
    connection: MultiplexedConnection,
}

/// Whether rows of the table are hashes: its rows may omit columns, or its columns change. All other tables have
/// documents, which also support the rule that keeps existing rows.
fn is_hash(table: &str) -> bool {
    table == SAMPLES.table().name() || table == "batchsql_suite_changes"
}

impl Redis {
    /// Opens the server of the DSN.
    ///
    /// # Errors
    /// The DSN is invalid, or the connection fails.
    pub async fn open(dsn: &str) -> Result<Self> {
        const WHOSE: &str = "REDIS_DSN or --redis-dsn";
        let events = Event::type_schema().table().name();
        let options: RedisOptions = dsn.parse().context(WHOSE)?;
        let options = options
            .default_command(Command::document())
            // It has no conflict rule, so its schema has no key.
            .command(events, Command::document().key(Key::prefixed(events, ["id"])))
            .command(SAMPLES.table().name(), Command::hash())
            .command("batchsql_suite_changes", Command::hash());
        let sink = RedisSink::with_options(&options).await.context(WHOSE)?;
        let connection = Client::open(dsn).context(WHOSE)?.get_multiplexed_async_connection().await.context(WHOSE)?;
        Ok(Self { sink, connection })
    }

    /// The keys of a table, a page at a time; `next` is the cursor, 0 at the start and at the end.
    async fn keys(&self, table: &str, next: u64) -> Result<(u64, Vec<String>)> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(next).arg("MATCH").arg(format!("{table}:*")).arg("COUNT").arg(PAGE);
        Ok(scan.query_async(&mut self.connection.clone()).await?)
    }

    async fn delete(&self, table: &str) -> Result<()> {
        let mut next = 0;
        loop {
            let (after, keys) = self.keys(table, next).await?;
            if !keys.is_empty() {
                let _: u64 = self.connection.clone().unlink(keys).await?;
            }
            if after == 0 {
                return Ok(());
            }
            next = after;
        }
    }

    /// The fields of rows, by name.
    async fn rows(&self, table: &str, keys: &[String]) -> Result<Vec<Vec<(String, Cell)>>> {
        let mut connection = self.connection.clone();
        if is_hash(table) {
            let mut pipe = redis::pipe();
            for key in keys {
                pipe.hgetall(key);
            }
            let rows: Vec<Vec<(String, Vec<u8>)>> = pipe.query_async(&mut connection).await?;
            let cells =
                |row: Vec<(String, Vec<u8>)>| row.into_iter().map(|(name, raw)| (name, Cell::Raw(raw))).collect();
            return Ok(rows.into_iter().map(cells).collect());
        }
        let documents: Vec<String> = connection.mget(keys).await?;
        let object = |text: &String| {
            let members: BTreeMap<String, Box<RawValue>> =
                serde_json::from_str(text).context("a document is not an object")?;
            Ok(members.into_iter().map(|(name, value)| (name, Cell::Member(value))).collect())
        };
        documents.iter().map(object).collect()
    }
}

/// A value as Redis stores it.
enum Cell {
    /// Part of a key, or field of a hash.
    Raw(Vec<u8>),
    /// Member of a document; the digits of numbers are kept.
    Member(Box<RawValue>),
}

/// A value that owns its data.
enum Owned {
    Null,
    Int(i128),
    Float(f64),
    Text(String, ColumnType),
    Bytes(Vec<u8>),
}

impl Owned {
    fn of(cell: &Cell, ty: ColumnType) -> Result<Self> {
        let (text, is_member) = match cell {
            Cell::Member(json) if json.get() == "null" => return Ok(Self::Null),
            Cell::Member(json) if ty != ColumnType::Json && json.get().starts_with('"') => {
                (serde_json::from_str(json.get())?, true)
            }
            Cell::Member(json) => (json.get().to_owned(), true),
            Cell::Raw(raw) if ty == ColumnType::Bytes => return Ok(Self::Bytes(raw.clone())),
            Cell::Raw(raw) => (String::from_utf8(raw.clone())?, false),
        };
        Ok(match ty.exhaustive() {
            Type::Bool => Self::Int((text == "1" || text == "true").into()),
            Type::I16 | Type::I32 | Type::I64 | Type::U64 => Self::Int(text.parse()?),
            Type::F32 => Self::Float(text.parse::<f32>()?.into()),
            Type::F64 => Self::Float(text.parse()?),
            Type::Bytes if is_member => Self::Bytes(from_hex(&text)?),
            Type::Uuid => Self::Bytes(from_hex(&text.replace('-', ""))?),
            Type::Bytes
            | Type::Decimal
            | Type::Text
            | Type::Json
            | Type::Date
            | Type::Time
            | Type::Timestamp
            | Type::TimestampTz => Self::Text(text, ty),
        })
    }

    fn canonical(&self) -> Canonical<'_> {
        match self {
            Self::Null => Canonical::Null,
            Self::Int(v) => Canonical::Int(*v),
            Self::Float(v) => Canonical::Float(*v),
            Self::Text(v, ty) => Canonical::of_text(v, *ty),
            Self::Bytes(v) => Canonical::Bytes(v),
        }
    }
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    anyhow::ensure!(digits.len() == text.len() && digits.len().is_multiple_of(2), "not hexadecimal");
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The values in a key `table:value:value`.
fn parts(key: &str) -> impl Iterator<Item = Cell> {
    let unescape = |part: &str| part.replace("%3A", ":").replace("%25", "%");
    key.split(':').skip(1).map(move |part| Cell::Raw(unescape(part).into_bytes()))
}

#[async_trait]
impl Database for Redis {
    async fn info(&self) -> Result<DatabaseInfo> {
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut self.connection.clone()).await?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown");
        let version = version.trim().to_owned();
        Ok(DatabaseInfo { name: "redis".to_owned(), version, location: "server".to_owned() })
    }

    fn sink(&self) -> DynSink {
        DynSink::new(self.sink.clone())
    }

    async fn create(&self, table: &TableSpec) -> Result<()> {
        self.delete(table.schema.table().name()).await
    }

    /// Rows bring their own fields.
    async fn add_column(&self, _: &Schema, _: &str, _: ColumnType) -> Result<()> {
        Ok(())
    }

    /// Fields stay in the hashes and are no longer read.
    async fn drop_column(&self, _: &Schema, _: &str) -> Result<()> {
        Ok(())
    }

    async fn read(&self, schema: &Schema, visit: Visitor<'_>) -> Result<()> {
        let table = schema.table().name();
        // A schema without a key column uses its first column as the key.
        let key_columns = if schema.key_columns().is_empty() { &[0][..] } else { schema.key_columns() };
        // A scan may return a key more than once.
        let mut seen = std::collections::HashSet::new();
        let mut next = 0;
        loop {
            let (after, mut keys) = self.keys(table, next).await?;
            keys.retain(|key| seen.insert(key.clone()));
            let rows = if keys.is_empty() { Vec::new() } else { self.rows(table, &keys).await? };
            for (key, fields) in keys.iter().zip(rows) {
                let of_key: Vec<Cell> = parts(key).collect();
                let values = schema.columns().iter().enumerate().map(|(index, column)| {
                    let of_key = key_columns.iter().position(|key| *key == index).map(|part| of_key.get(part));
                    let cell = of_key
                        .unwrap_or_else(|| fields.iter().find(|(name, _)| name == column.name()).map(|(_, cell)| cell));
                    cell.map_or(Ok(Owned::Null), |cell| Owned::of(cell, column.column_type()))
                });
                let values = values.collect::<Result<Vec<_>>>()?;
                visit(&values.iter().map(Owned::canonical).collect::<Vec<_>>());
            }
            if after == 0 {
                return Ok(());
            }
            next = after;
        }
    }

    async fn drop_table(&self, schema: &Schema) -> Result<()> {
        self.delete(schema.table().name()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart_as_the_sink_puts_them_together() {
        let texts: Vec<String> = parts("t:1:a%3Ab%2525")
            .map(|cell| match cell {
                Cell::Raw(raw) => String::from_utf8(raw).unwrap(),
                Cell::Member(json) => json.get().to_owned(),
            })
            .collect();
        assert_eq!(texts, ["1", "a:b%25"]);
    }
}
