//! Owns the section `[durable]`.
//! Must not know how they are checked or used.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::config::quantity::{bytes, duration};

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
    /// How long rows stay in the log after they were stored, also if they have ended.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) keep_for: Duration,
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
