//! Owns the sections of a configuration as they are written, with their defaults.
//! Must not know how they are checked or used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use batchsql::{ColumnType, PipelineConfig};
use serde::Deserialize;
use toml::Spanned;

use crate::config::nats_sections::{JetStream, Nats, Publish};
use crate::config::quantity::{bytes, duration};
use crate::config::secret::Secret;

/// A configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) database: Option<Spanned<Database>>,
    pub(crate) nats: Option<Spanned<Nats>>,
    /// In place of a database.
    pub(crate) publish: Option<Spanned<Publish>>,
    #[serde(default)]
    pub(crate) pipeline: Placed<PipelineConfig>,
    pub(crate) durable: Option<Spanned<Durable>>,
    pub(crate) http: Option<Spanned<Http>>,
    pub(crate) metrics: Option<Spanned<Metrics>>,
    pub(crate) dead_letters: Option<Spanned<DeadLetters>>,
    #[serde(default)]
    pub(crate) log: Log,
    #[serde(default)]
    pub(crate) run: Run,
    #[serde(default)]
    pub(crate) tables: Vec<Spanned<Table>>,
    #[serde(default)]
    pub(crate) sources: Vec<Spanned<Source>>,
}

/// Settings whose place is known if they are in the file.
#[derive(Debug, Default)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) span: Option<std::ops::Range<usize>>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Placed<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        let span = Some(spanned.span());
        Ok(Self { value: spanned.into_inner(), span })
    }
}

/// `[run]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Run {
    /// How long `run` waits at its end for rows that are not written yet.
    #[serde(deserialize_with = "duration")]
    pub(crate) drain_for: Duration,
}

impl Default for Run {
    fn default() -> Self {
        Self { drain_for: Duration::from_secs(30) }
    }
}

/// `[database]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Database {
    pub(crate) dsn: Option<Secret>,
    pub(crate) dsn_file: Option<PathBuf>,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<PathBuf>,
    /// How long the start waits for a database that cannot be reached.
    #[serde(deserialize_with = "duration")]
    pub(crate) connect_for: Duration,
}

/// `[durable]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Durable {
    pub(crate) folder: PathBuf,
    #[serde(default)]
    pub(crate) sync: Sync,
    /// The name of this intake in the table of positions.
    pub(crate) exactly_once: Option<String>,
    pub(crate) partitions: Option<u32>,
    #[serde(default = "disk", deserialize_with = "bytes")]
    pub(crate) disk: u64,
    #[serde(default = "min_free", deserialize_with = "bytes")]
    pub(crate) min_free: u64,
}

fn disk() -> u64 {
    10 << 30
}

fn min_free() -> u64 {
    256 << 20
}

/// When a row is acknowledged by the durable intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sync {
    #[default]
    Always,
    Os,
}

/// `[http]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    pub(crate) listen: String,
    /// Whether everyone who can reach the address may write, beyond the loopback interface.
    pub(crate) anonymous: bool,
    pub(crate) tokens: Vec<Spanned<Token>>,
    pub(crate) tls: Option<Spanned<Tls>>,
    pub(crate) limits: Limits,
    pub(crate) idempotency: Idempotency,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            anonymous: false,
            tokens: Vec::new(),
            tls: None,
            limits: Limits::default(),
            idempotency: Idempotency::default(),
        }
    }
}

/// `[[http.tokens]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) token: Option<Secret>,
    pub(crate) token_file: Option<PathBuf>,
    /// The tables that it may write; all if it is left out.
    pub(crate) tables: Option<Vec<String>>,
}

/// `[http.tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificates: PathBuf,
    pub(crate) key: PathBuf,
}

/// `[http.limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Bytes of a body as it is sent.
    #[serde(deserialize_with = "bytes")]
    pub(crate) body: u64,
    /// Bytes of a body after it was decompressed.
    #[serde(deserialize_with = "bytes")]
    pub(crate) decompressed: u64,
    /// Bytes of the rows of a request that a durable intake stores all or none.
    #[serde(deserialize_with = "bytes")]
    pub(crate) together: u64,
    /// Bytes of the rows of all requests that are held for it.
    #[serde(deserialize_with = "bytes")]
    pub(crate) held: u64,
    /// Bytes of one line, or of one element of an array.
    #[serde(deserialize_with = "bytes")]
    pub(crate) line: u64,
    pub(crate) connections: usize,
    /// For a TLS handshake, the head of a request, and between requests.
    #[serde(deserialize_with = "duration")]
    pub(crate) header_time: Duration,
    /// Between two parts of a body.
    #[serde(deserialize_with = "duration")]
    pub(crate) body_pause: Duration,
    /// For a whole body.
    #[serde(deserialize_with = "duration")]
    pub(crate) body_time: Duration,
    /// For a client to receive a response.
    #[serde(deserialize_with = "duration")]
    pub(crate) answer_time: Duration,
    /// How long a request waits for capacity before it is answered with 429.
    #[serde(deserialize_with = "duration")]
    pub(crate) capacity_time: Duration,
    /// Lines whose reason a response has; more are only counted.
    pub(crate) rejections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 256 << 20,
            decompressed: 1 << 30,
            together: 16 << 20,
            held: 128 << 20,
            line: 1 << 20,
            connections: 1024,
            header_time: Duration::from_secs(10),
            body_pause: Duration::from_secs(30),
            body_time: Duration::from_secs(600),
            answer_time: Duration::from_secs(10),
            capacity_time: Duration::from_secs(2),
            rejections: 1000,
        }
    }
}

/// `[http.idempotency]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Idempotency {
    #[serde(deserialize_with = "duration")]
    pub(crate) keep_for: Duration,
    pub(crate) keys: usize,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { keep_for: Duration::from_secs(3600), keys: 10_000 }
    }
}

/// `[metrics]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    /// A port of its own; without it the endpoint is in the server of `[http]`.
    pub(crate) listen: Option<String>,
    pub(crate) token: Option<Secret>,
    pub(crate) token_file: Option<PathBuf>,
    /// Whether everyone who can reach the address may read them, beyond the loopback interface.
    pub(crate) anonymous: bool,
    pub(crate) live_page: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: None, token: None, token_file: None, anonymous: false, live_page: true }
    }
}

/// `[dead_letters]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadLetters {
    pub(crate) file: PathBuf,
}

/// `[log]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    /// A filter of `tracing`, such as `info` or `warn,batchsql=debug`.
    pub(crate) level: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// `[[tables]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// What requests and sources call it.
    pub(crate) name: Spanned<String>,
    /// Its name in the database, `table` or `schema.table`; default: `name`.
    pub(crate) table: Option<String>,
    #[serde(default)]
    pub(crate) rule: Rule,
    /// Default: the primary key, or the first other unique index.
    pub(crate) key: Option<Vec<String>>,
    pub(crate) only_if_newer: Option<String>,
    /// The columns that an update overwrites; default: all that are not in the key.
    pub(crate) update_columns: Option<Vec<String>>,
    /// What an update does with a column, in place of overwriting it.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, SetTo>,
    /// Field -> column, where the names differ.
    #[serde(default)]
    pub(crate) fields: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(crate) unknown_fields: Unknown,
    #[serde(default)]
    pub(crate) missing_fields: Missing,
    /// Column -> value, for rows without its field.
    #[serde(default)]
    pub(crate) defaults: BTreeMap<String, Spanned<toml::Value>>,
    /// For databases without a catalogue.
    #[serde(default)]
    pub(crate) columns: Vec<Column>,
    /// For Redis.
    pub(crate) redis: Option<RedisCommand>,
}

/// A declared column.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) ty: ColumnType,
    #[serde(default)]
    pub(crate) nullable: bool,
}

/// What becomes of a row of the table on Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RedisCommand {
    Hash,
    Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rule {
    #[default]
    Insert,
    Ignore,
    Update,
    Replace,
    UpdateOnly,
    Delete,
}

impl Rule {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Ignore => "ignore",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::UpdateOnly => "update_only",
            Self::Delete => "delete",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SetTo {
    Add,
    Keep,
    UnlessNull,
    Greatest,
    Least,
    Now,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unknown {
    #[default]
    Refuse,
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Missing {
    #[default]
    LeaveOut,
    Null,
    Refuse,
}

/// `[[sources]]`: exactly one of `files`, `stdin` and `jetstream`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) id: Spanned<String>,
    /// Of `files` and `stdin`.
    pub(crate) table: Option<Spanned<String>>,
    /// Of `jetstream`; default: all tables.
    pub(crate) tables: Option<Vec<Spanned<String>>>,
    pub(crate) jetstream: Option<Spanned<JetStream>>,
    /// A pattern of paths.
    pub(crate) files: Option<String>,
    #[serde(default)]
    pub(crate) stdin: bool,
    pub(crate) format: Option<Format>,
    /// How often the folder is searched.
    #[serde(default = "every", deserialize_with = "duration")]
    pub(crate) every: Duration,
    /// Store how far a file is written in a file beside it, not in the database.
    #[serde(default)]
    pub(crate) at_least_once: bool,
    /// A file that has not changed for this long is complete.
    #[serde(default = "settle", deserialize_with = "duration")]
    pub(crate) unchanged_for: Duration,
}

fn every() -> Duration {
    Duration::from_secs(5)
}

fn settle() -> Duration {
    Duration::from_secs(2)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    Csv,
    Ndjson,
    /// Of a program with the feature `arrow`
    Parquet,
    /// Arrow IPC, also called Feather, as a file or a stream; of a program with the feature `arrow`
    Arrow,
}

impl Format {
    /// Whether its rows come in batches of columns.
    pub(crate) fn has_batches(self) -> bool {
        matches!(self, Self::Parquet | Self::Arrow)
    }
}
