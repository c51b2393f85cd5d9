//! Owns the servers of one database: which of several is connected to.
//! Must not know pools, or how a DSN is spelled.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use tokio::time::timeout;

/// Which of several servers is used, as `target_session_attrs` of libpq. A sink writes, so there is none for standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TargetSession {
    /// The first one that takes connections, also a standby. The default with one server, which is not asked.
    Any,
    /// The first one whose sessions may write. The default with several servers.
    #[default]
    ReadWrite,
    /// The first one that is not a standby.
    Primary,
}

impl TargetSession {
    /// A query of one boolean: whether the server is one of these.
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
    pub(crate) target: TargetSession,
}

/// Why no server was found.
#[derive(Debug)]
pub(crate) enum NoServer {
    /// It could not be connected to.
    Failed(Box<PgConnectOptions>, sqlx::Error),
    TimedOut(Box<PgConnectOptions>),
    /// Each one that takes connections is read-only.
    ReadOnly,
}

impl Servers {
    /// Whether there is a choice.
    pub(crate) fn are_several(&self) -> bool {
        self.addresses.len() > 1
    }

    /// The options for the first server that fits, after connecting to it once. Without addresses, those that are
    /// given.
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
        let question = if self.are_several() { self.target.question() } else { None };
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

/// The options for another address.
pub(crate) fn at(options: &PgConnectOptions, host: &str, port: u16) -> PgConnectOptions {
    let options = options.clone().port(port);
    if host.starts_with('/') { options.socket(host) } else { options.host(host) }
}

async fn fits(mut conn: PgConnection, question: Option<&str>) -> Result<bool, sqlx::Error> {
    use sqlx::Executor;
    let fits = match question {
        // A simple query, as every kind of connection takes it.
        Some(question) => conn.fetch_one(question).await?.try_get::<bool, _>(0)?,
        None => true,
    };
    // Ends the session properly; an error here changes nothing.
    drop(conn.close().await);
    Ok(fits)
}
