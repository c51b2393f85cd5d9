//! Owns the sections `[[sources]]`.
//! Must not know how they are checked or used.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::config::nats_sections::JetStream;
use crate::config::quantity::{duration, some_time};

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
    #[serde(default = "every", deserialize_with = "some_time")]
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
