//! Owns the sections of what the program serves over HTTP: `[http]` and `[metrics]`.
//! Must not know how they are checked or used.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::config::quantity::{bytes, count, duration, some_time};
use crate::config::secret::Secret;

/// `[http]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    /// Default: 127.0.0.1:8080.
    pub(crate) listen: Option<Spanned<String>>,
    /// Whether everyone who can reach the address may write, beyond the loopback interface.
    pub(crate) anonymous: bool,
    pub(crate) tokens: Vec<Spanned<Token>>,
    pub(crate) tls: Option<Spanned<Tls>>,
    pub(crate) limits: Limits,
    pub(crate) idempotency: Idempotency,
}

/// `[[http.tokens]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) token: Option<Secret>,
    pub(crate) token_file: Option<Spanned<PathBuf>>,
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
    #[serde(deserialize_with = "count")]
    pub(crate) connections: usize,
    /// For a TLS handshake, the head of a request, and between requests.
    #[serde(deserialize_with = "some_time")]
    pub(crate) header_time: Duration,
    /// Between two parts of a body.
    #[serde(deserialize_with = "some_time")]
    pub(crate) body_pause: Duration,
    /// For a whole body.
    #[serde(deserialize_with = "some_time")]
    pub(crate) body_time: Duration,
    /// For a client to receive a response.
    #[serde(deserialize_with = "some_time")]
    pub(crate) answer_time: Duration,
    /// How long a request waits for capacity before it is answered with 429.
    #[serde(deserialize_with = "duration")]
    pub(crate) capacity_time: Duration,
    /// Lines whose reason a response has; more are only counted.
    #[serde(deserialize_with = "count")]
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
    #[serde(deserialize_with = "some_time")]
    pub(crate) keep_for: Duration,
    #[serde(deserialize_with = "count")]
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
    pub(crate) listen: Option<Spanned<String>>,
    pub(crate) token: Option<Secret>,
    pub(crate) token_file: Option<Spanned<PathBuf>>,
    /// Whether everyone who can reach the address may read them, beyond the loopback interface.
    pub(crate) anonymous: bool,
    pub(crate) live_page: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: None, token: None, token_file: None, anonymous: false, live_page: true }
    }
}
