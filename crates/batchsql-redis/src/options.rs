//! Owns the settings: the address of the server, the connection options, the commands of the tables.
//! Must not know rows or connections, or how a DSN is parsed.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use batchsql_core::{AbandonedWrites, CachedPassword, PasswordProvider};
use redis::{ConnectionInfo, ProtocolVersion};

use crate::command::Command;
use crate::transport::TlsClient;

/// Connection settings, and the commands that rows become.
///
/// As a DSN:
///
/// | DSN | server |
/// |---|---|
/// | `redis://[user[:password]@]host[:port][/database]` | one server; `redis://:password@host` without a user |
/// | `rediss://…` | the same with TLS (feature `tls`) |
/// | `unix:///path?db=0&user=…&pass=…` | a Unix socket |
/// | `redis://[user[:password]@]host[:port],host[:port]…?cluster=true` | a cluster, by some of its nodes |
/// | `redis+sentinel://[user[:password]@]host[:port],host[:port]…/master[/database]` | the master with that name, as reported by these sentinels (default port 26379); `rediss+sentinel://…` with TLS to both |
///
/// with these parameters:
///
/// | parameter | values | default |
/// |---|---|---|
/// | `max_connections` | connections, at least 1 | 4 |
/// | `connect_timeout` | a duration above 0: the time for one connection attempt | `5s` |
/// | `node_timeout` | a duration above 0, for clusters | `10s` |
/// | `silence_limit` | a duration above 0, not for Unix sockets | `30s` |
/// | `abandoned_writes` | `kill`, `wait` | `kill` |
/// | `late_write_limit` | a duration | not known |
/// | `protocol` | `2`, `3` | 3 if the server supports it |
/// | `sentinel_user`, `sentinel_password` | the login of the sentinels | none |
/// | `ca` | with TLS: a file of certificates in PEM form | the system's |
/// | `cert`, `key` | with TLS: files of the client's certificate and its key in PEM form | none |
///
/// Durations have a unit: `500ms`, `5s`, `2min`, `1h`; without one they are in seconds. Percent-encode characters that are
/// special in URLs.
///
/// ```
/// use batchsql_redis::RedisOptions;
/// let options: RedisOptions = "redis://app:p%40ss@db.example:6380/2?max_connections=8".parse()?;
/// assert!(!format!("{options:?}").contains("p@ss"));
/// assert!("postgres://app:secret@host/db".parse::<RedisOptions>().is_err());
/// # Ok::<(), batchsql_redis::OpenError>(())
/// ```
#[derive(Clone)]
pub struct RedisOptions {
    /// One server, or some nodes of a cluster, or the hosts of the sentinels with the user of the master.
    pub(crate) seeds: Vec<ConnectionInfo>,
    /// The sentinels, if they name the server.
    pub(crate) sentinels: Option<Sentinels>,
    pub(crate) is_cluster: bool,
    /// `None`: version 3 if the server supports it.
    pub(crate) protocol: Option<ProtocolVersion>,
    pub(crate) max_connections: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) node_timeout: Duration,
    pub(crate) abandoned_writes: AbandonedWrites,
    pub(crate) late_write_limit: Option<Duration>,
    pub(crate) silence_limit: Duration,
    pub(crate) tls: Option<TlsClient>,
    pub(crate) password: Option<CachedPassword>,
    pub(crate) commands: Commands,
}

/// The sentinels that monitor a master.
#[derive(Debug, Clone)]
pub(crate) struct Sentinels {
    pub(crate) hosts: Vec<ConnectionInfo>,
    /// The name of the master at the sentinels.
    pub(crate) master: String,
}

/// The commands by table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commands {
    by_table: HashMap<String, Command>,
    default: Option<Command>,
}

impl Commands {
    /// The command of a table (`namespace.table`).
    pub(crate) fn of(&self, table: &str) -> Option<&Command> {
        self.by_table.get(table).or(self.default.as_ref())
    }
}

impl RedisOptions {
    /// The number of concurrent batches, each on its own connection (in a cluster: one to each node that it
    /// needs); default 4, at least 1.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// How long opening one connection may take, including the handshake; default 5 s. A
    /// [`password_provider`](Self::password_provider) may take the same time in addition.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long the nodes of a cluster may take to answer one batch; default 10 s. The rows of a late node end as
    /// unknown, or are retried if that is harmless; those of the other nodes have their outcomes. Set it some
    /// seconds below the pipeline's `statement_timeout`, which ends the whole batch.
    #[must_use]
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.node_timeout = timeout;
        self
    }

    /// What happens to an abandoned batch; default [`AbandonedWrites::Kill`].
    #[must_use]
    pub fn abandoned_writes(mut self, way: AbandonedWrites) -> Self {
        self.abandoned_writes = way;
        self
    }

    /// How long an abandoned batch may still take effect if its connection cannot be ended: the time for which the
    /// system retransmits unacknowledged data (Linux: about 15 minutes, `net.ipv4.tcp_retries2`), plus the longest
    /// stall of the server. An ordered lane waits this long before its next batch. Default: not known; then the lane
    /// continues at once, and the order of its rows is not guaranteed after such a batch.
    #[must_use]
    pub fn late_write_limit(mut self, limit: Duration) -> Self {
        self.late_write_limit = Some(limit);
        self
    }

    /// How long the remote system of a TCP connection may not answer at all, and (Linux) how long the server may
    /// accept no sent data; default 30 s. After that the connection counts as broken: by keepalive probes, and
    /// (Linux) by `TCP_USER_TIMEOUT`. Whole seconds, at least 6.
    ///
    /// Set it above the longest stall of the server (a long script, a fork, a slow disk): while the server reads
    /// nothing, the buffers between it and this process fill up, and a connection with unsent data is then closed,
    /// although the remote system answers. A connection without unsent data stays open.
    #[must_use]
    pub fn silence_limit(mut self, limit: Duration) -> Self {
        self.silence_limit = limit;
        self
    }

    /// Sets the source of the password, instead of the DSN: for tokens that change. The provider is called when a
    /// connection is opened and the last password is no longer valid or was rejected. Open connections stay open. A
    /// call that takes longer than [`connect_timeout`](Self::connect_timeout) fails with an error.
    #[must_use]
    pub fn password_provider(mut self, provider: impl PasswordProvider) -> Self {
        self.password = Some(CachedPassword::new(provider));
        self
    }

    /// The command for the rows of `table` (`namespace.table` if the schema has a namespace). Without it, and
    /// without a [`default_command`](Self::default_command), rows of schemas that declare a key become hashes
    /// ([`Command::hash`]), and other schemas are rejected.
    #[must_use]
    pub fn command(mut self, table: impl Into<String>, command: impl Into<Command>) -> Self {
        self.commands.by_table.insert(table.into(), command.into());
        self
    }

    /// The command for the rows of every other table.
    #[must_use]
    pub fn default_command(mut self, command: impl Into<Command>) -> Self {
        self.commands.default = Some(command.into());
        self
    }

    /// The address of the server, for messages.
    pub(crate) fn address(&self) -> String {
        let addresses: Vec<String> = self.seeds.iter().map(|seed| seed.addr().to_string()).collect();
        addresses.join(", ")
    }
}

/// Shows the address, never a password.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("address", &self.address())
            .field("is_cluster", &self.is_cluster)
            .field("max_connections", &self.max_connections)
            .field("connect_timeout", &self.connect_timeout)
            .field("node_timeout", &self.node_timeout)
            .field("abandoned_writes", &self.abandoned_writes)
            .field("late_write_limit", &self.late_write_limit)
            .field("silence_limit", &self.silence_limit)
            .field("commands", &self.commands)
            .finish_non_exhaustive()
    }
}
