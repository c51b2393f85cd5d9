//! Owns the sections of a configuration that are about NATS JetStream, as they are written, with their defaults.
//! Must not know how they are checked or used.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::config::quantity::{duration, duration_of, optional_bytes, some_bytes};
use crate::config::secret::Secret;

/// `[nats]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Nats {
    /// One URL, or several with commas between. Hidden, as a URL with a password by mistake is.
    pub(crate) servers: Option<Secret>,
    pub(crate) servers_file: Option<Spanned<PathBuf>>,
    pub(crate) token: Option<Secret>,
    pub(crate) token_file: Option<Spanned<PathBuf>>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<Spanned<PathBuf>>,
    /// A file of credentials, with a token and a key, as `nsc` makes it.
    pub(crate) credentials_file: Option<Spanned<PathBuf>>,
    pub(crate) tls: Option<NatsTls>,
}

/// `[nats.tls]`: TLS is required.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NatsTls {
    /// Certificates that the server's is signed by; default: those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// The certificate of this program, and its key.
    pub(crate) certificates: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// `[publish]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    pub(crate) stream: Stream,
}

/// `stream = { name = "orders" }` of `[publish]` and of sources.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stream {
    pub(crate) name: String,
    /// What its subjects begin with.
    #[serde(default = "prefix")]
    pub(crate) prefix: String,
    #[serde(default = "partitions")]
    pub(crate) partitions: u32,
    /// How it is made if it is missing; without it, it must be there.
    pub(crate) create: Option<Create>,
}

fn prefix() -> String {
    "ingest".to_owned()
}

fn partitions() -> u32 {
    8
}

/// `create = { replicas = 3 }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    pub(crate) replicas: usize,
    /// Default: what the account allows.
    #[serde(default, deserialize_with = "optional_bytes")]
    pub(crate) max_bytes: Option<u64>,
}

/// `[sources.jetstream]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JetStream {
    pub(crate) stream: Stream,
    /// Default: exactly once where the database can.
    pub(crate) guarantee: Option<Guarantee>,
    /// The name of all workers of one database together; default: the name of the stream.
    pub(crate) source: Option<String>,
    /// The name of this process; default: a new one at each start.
    pub(crate) worker: Option<String>,
    #[serde(default = "lease", deserialize_with = "duration")]
    pub(crate) lease: Duration,
    #[serde(default = "ack_wait", deserialize_with = "duration")]
    pub(crate) ack_wait: Duration,
    #[serde(default)]
    pub(crate) keep_for: KeepFor,
    #[serde(default)]
    pub(crate) format: Messages,
    /// Bytes of a message after it was decompressed.
    #[serde(default = "decompressed", deserialize_with = "some_bytes")]
    pub(crate) decompressed: u64,
}

fn lease() -> Duration {
    Duration::from_secs(45)
}

fn ack_wait() -> Duration {
    Duration::from_secs(30)
}

fn decompressed() -> u64 {
    64 << 20
}

/// Which messages have rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Messages {
    /// Those of publishers of this program or its library.
    #[default]
    Blocks,
    /// Those of other publishers too, which are JSON.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Guarantee {
    #[serde(alias = "exactly-once")]
    ExactlyOnce,
    #[serde(alias = "at-least-once")]
    AtLeastOnce,
}

/// How long messages stay in the stream after they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepFor {
    Time(Duration),
    /// Something else removes them.
    Forever,
}

impl Default for KeepFor {
    fn default() -> Self {
        Self::Time(Duration::ZERO)
    }
}

impl<'de> Deserialize<'de> for KeepFor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "forever" {
            return Ok(Self::Forever);
        }
        duration_of(&text, "\"1h\", or \"forever\"").map(Self::Time)
    }
}
