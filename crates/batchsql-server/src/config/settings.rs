//! Owns the settings of the program after every check.
//! Must not know how they are written.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use batchsql::PipelineConfig;

use crate::config::nats_sections::{Guarantee, KeepFor, Messages, NatsTls, Stream};
use crate::config::secret::Secret;
use crate::config::sections::{Durable, Format, Idempotency, Limits, Log, Table, Tls};

/// A configuration that can work, as far as the file says.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) destination: Destination,
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

    /// The file of rows that were not written: the configured one, or that in the folder of `[durable]`.
    pub(crate) fn dead_letters_file(&self) -> Option<PathBuf> {
        let of_durable = || self.durable.as_ref().map(|durable| letters_of(&durable.folder));
        self.dead_letters.clone().or_else(of_durable)
    }

    /// The names of the tables, for messages.
    pub(crate) fn table_names(&self) -> Vec<&str> {
        self.tables.iter().map(|table| table.name.get_ref().as_str()).collect()
    }

    /// The database that rows are written to.
    ///
    /// # Errors
    /// They are published.
    pub(crate) fn database(&self) -> Result<&Database, String> {
        match &self.destination {
            Destination::Database(database) => Ok(database),
            Destination::Stream(_) => {
                Err("the configuration publishes rows to a stream ([publish]), so it has no database \
                                           to write; use the configuration of a worker"
                    .to_owned())
            }
        }
    }
}

/// The file of rows that were not written, if only the folder of `[durable]` is known.
pub(super) fn letters_of(durable: &Path) -> PathBuf {
    durable.join("dead-letters.ndjson")
}

/// Where rows go.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    Database(Database),
    Stream(Box<Publish>),
}

impl Destination {
    /// The database that rows are written to, or whose columns are read.
    pub(crate) fn catalogue(&self) -> Option<&Database> {
        match self {
            Self::Database(database) => Some(database),
            Self::Stream(publish) => publish.catalogue.as_ref(),
        }
    }
}

/// A stream that rows are published to.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    pub(crate) nats: Nats,
    pub(crate) stream: Stream,
    /// Where columns are read at the start; nothing is written there. `None`: all columns are declared.
    pub(crate) catalogue: Option<Database>,
}

/// The servers of NATS, and how to log in.
#[derive(Debug, Clone)]
pub(crate) struct Nats {
    /// URLs, at least one, without a login.
    pub(crate) servers: Vec<String>,
    pub(crate) login: Login,
    /// With absolute paths.
    pub(crate) tls: Option<NatsTls>,
}

#[derive(Debug, Clone)]
pub(crate) enum Login {
    /// Without a login.
    Open,
    Token(Secret),
    Password(String, Secret),
    /// The content of the file.
    Credentials(Secret),
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
    pub(crate) kind: SourceKind,
}

/// The kinds of sources. A feed of another engine becomes a kind here, and a function in `sources`.
#[derive(Debug, Clone)]
pub(crate) enum SourceKind {
    Files(Files),
    /// The table by its name in the configuration.
    Stdin {
        table: String,
    },
    JetStream(Box<JetStream>),
}

impl SourceKind {
    /// Whether its rows go through the intake, as those of requests do. A stream is written from where it is.
    pub(crate) fn needs_intake(&self) -> bool {
        !matches!(self, Self::JetStream(_))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// By its name in the configuration.
    pub(crate) table: String,
    /// As it is written; where a relative one starts is `folder`.
    pub(crate) given: PathBuf,
    /// That of the configuration.
    pub(crate) folder: PathBuf,
    /// With the folder, whose name is taken literally.
    pub(crate) pattern: String,
    /// `None`: by the name of the file.
    pub(crate) format: Option<Format>,
    pub(crate) at_least_once: bool,
    pub(crate) every: Duration,
    pub(crate) unchanged_for: Duration,
}

impl Files {
    /// The pattern for a person.
    pub(crate) fn shown(&self) -> PathBuf {
        self.folder.join(&self.given)
    }
}

/// A stream that a worker reads.
#[derive(Debug, Clone)]
pub(crate) struct JetStream {
    pub(crate) nats: Nats,
    pub(crate) stream: Stream,
    /// By their names in the configuration; at least one.
    pub(crate) tables: Vec<String>,
    pub(crate) guarantee: Guarantee,
    /// In the table of positions and in the names of consumers.
    pub(crate) source: String,
    /// `None`: a new name at each start.
    pub(crate) worker: Option<String>,
    pub(crate) lease: Duration,
    pub(crate) ack_wait: Duration,
    pub(crate) keep_for: KeepFor,
    pub(crate) format: Messages,
    /// Bytes of a message after it was decompressed.
    pub(crate) decompressed: u64,
    /// For rows that the database refuses.
    pub(crate) dead_letters: PathBuf,
}
