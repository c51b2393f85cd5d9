//! Owns the servers of one database: which of several the sink connects to.
//! Must not know pools or the DSN syntax.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use tokio::time::timeout;

/// Which of several servers is used, as with `target_session_attrs` of libpq. A sink writes, so there is no option
/// for standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TargetSession {
    /// The first one that accepts connections, even a standby. Without a target, a single server is not
    /// checked.
    Any,
    /// The first one whose sessions may write. The default with several servers.
    #[default]
    ReadWrite,
    /// The first one that is not a standby.
    Primary,
}

impl TargetSession {
    /// A query that returns one boolean: whether the server matches.
    fn question(self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::ReadWrite => Some("SELECT pg_catalog.current_setting('transaction_read_only') = 'off'"),
            Self::Primary => Some("SELECT NOT pg_catalog.pg_is_in_recovery()"),
        }
    }
}

/// Servers that are tried in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Servers {
    pub(crate) addresses: Vec<(Box<str>, u16)>,
    /// `None`: no target was configured.
    pub(crate) target: Option<TargetSession>,
}

/// Why no server was found.
#[derive(Debug)]
pub(crate) enum NoServer {
    /// The connection failed.
    Failed(Box<PgConnectOptions>, sqlx::Error),
    TimedOut(Box<PgConnectOptions>),
    /// Every server that accepts connections is read-only.
    ReadOnly,
}

impl Servers {
    /// Whether there are several servers.
    pub(crate) fn are_several(&self) -> bool {
        self.addresses.len() > 1
    }

    /// Whether a server is checked before it is used: there are several, or a target is configured.
    pub(crate) fn are_asked(&self) -> bool {
        self.are_several() || self.question().is_some()
    }

    fn question(&self) -> Option<&'static str> {
        match self.target {
            Some(target) => target.question(),
            None if self.are_several() => TargetSession::default().question(),
            None => None,
        }
    }

    /// The options for the first matching server, after one connection to it. Without addresses, uses the given
    /// options.
    pub(crate) async fn choose(
        &self,
        options: &PgConnectOptions,
        limit: Duration,
    ) -> Result<PgConnectOptions, NoServer> {
        let addresses = self.addresses.iter().map(|(host, port)| at(options, host, *port));
        let mut candidates: Vec<PgConnectOptions> = addresses.collect();
        if candidates.is_empty() {
            candidates.push(options.clone());
        }
        let question = self.question();
        let mut reason = NoServer::ReadOnly;
        for options in candidates {
            let conn = match timeout(limit, options.connect()).await {
                Ok(Ok(conn)) => conn,
                Ok(Err(error)) => {
                    reason = NoServer::Failed(Box::new(options), error);
                    continue;
                }
                Err(_) => {
                    reason = NoServer::TimedOut(Box::new(options));
                    continue;
                }
            };
            match timeout(limit, fits(conn, question)).await {
                Ok(Ok(true)) => return Ok(options),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => reason = NoServer::Failed(Box::new(options), error),
                Err(_) => reason = NoServer::TimedOut(Box::new(options)),
            }
        }
        Err(reason)
    }
}

/// The options for another address. For `sqlx` a folder is also a host; a socket set as such could not be unset for
/// the next address.
pub(crate) fn at(options: &PgConnectOptions, host: &str, port: u16) -> PgConnectOptions {
    options.clone().host(host).port(port)
}

/// The options with the address of others.
pub(crate) fn move_to(options: PgConnectOptions, chosen: &PgConnectOptions) -> PgConnectOptions {
    let moved = options.host(chosen.get_host()).port(chosen.get_port());
    match chosen.get_socket() {
        Some(socket) => moved.socket(socket),
        None => moved,
    }
}

async fn fits(mut conn: PgConnection, question: Option<&str>) -> Result<bool, sqlx::Error> {
    use sqlx::Executor;
    let fits = match question {
        // A simple query, because every kind of connection supports it.
        Some(question) => conn.fetch_one(question).await?.try_get::<bool, _>(0)?,
        None => true,
    };
    // Ends the session properly; an error here changes nothing.
    drop(conn.close().await);
    Ok(fits)
}
