//! Owns a whole configuration, and its short sections.
//! Must not know how they are checked or used.

use std::path::PathBuf;
use std::time::Duration;

use batchsql::PipelineConfig;
use serde::Deserialize;
use toml::Spanned;

use super::durable::Durable;
use super::http::{Http, Metrics};
use super::source::Source;
use super::table::Table;
use crate::config::nats_sections::{Nats, Publish};
use crate::config::quantity::duration;
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
    pub(crate) dsn_file: Option<Spanned<PathBuf>>,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<Spanned<PathBuf>>,
    /// How long the start waits for a database that cannot be reached.
    #[serde(deserialize_with = "duration")]
    pub(crate) connect_for: Duration,
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
    pub(crate) level: Option<Spanned<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}
