//! Owns the settings of the program after every check.
//! Must not know how they are written.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use batchsql::PipelineConfig;

use crate::config::secret::Secret;
use crate::config::sections::{Durable, Format, Idempotency, Limits, Log, Table, Tls};

/// A configuration that can work, as far as the file says.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) database: Database,
    pub(crate) pipeline: PipelineConfig,
    /// With an absolute folder.
    pub(crate) durable: Option<Durable>,
    pub(crate) http: Option<Http>,
    pub(crate) metrics: Metrics,
    pub(crate) dead_letters: Option<PathBuf>,
    pub(crate) log: Log,
    pub(crate) drain_for: Duration,
    /// At least one; names are unique.
    pub(crate) tables: Vec<Table>,
    /// Ids are unique.
    pub(crate) sources: Vec<Source>,
}

impl Settings {
    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| *table.name.get_ref() == name)
    }

    /// The names of the tables, for messages.
    pub(crate) fn table_names(&self) -> Vec<&str> {
        self.tables.iter().map(|table| table.name.get_ref().as_str()).collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) dsn: Secret,
    pub(crate) connect_for: Duration,
}

impl Database {
    pub(crate) fn is_redis(&self) -> bool {
        let scheme = self.dsn.reveal().split_once(':').map_or("", |(scheme, _)| scheme);
        ["redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix", "redis+unix"].contains(&scheme)
    }
}

#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) listen: SocketAddr,
    pub(crate) tokens: Vec<Token>,
    pub(crate) tls: Option<Tls>,
    pub(crate) limits: Limits,
    pub(crate) idempotency: Idempotency,
}

/// Who may write.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) secret: Secret,
    /// `None`: every table.
    pub(crate) tables: Option<Vec<String>>,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    /// `None`: in the server of `[http]`.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) token: Option<Secret>,
    pub(crate) live_page: bool,
}

/// Where rows come from, besides HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) id: String,
    /// The name of its table in the configuration.
    pub(crate) table: String,
    pub(crate) kind: SourceKind,
}

/// The kinds of sources. A feed of another engine becomes a kind here, and a function in `sources`.
#[derive(Debug, Clone)]
pub(crate) enum SourceKind {
    Files(Files),
    Stdin,
}

#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) pattern: String,
    /// `None`: by the name of the file.
    pub(crate) format: Option<Format>,
    pub(crate) at_least_once: bool,
    pub(crate) every: Duration,
    pub(crate) unchanged_for: Duration,
}
