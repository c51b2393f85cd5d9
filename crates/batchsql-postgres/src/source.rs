//! Owns where connections come from: the pool, its password and its server when these change.
//! Must not know batches or plans.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use batchsql_core::{CachedPassword, ErrorClass, SinkError};
use sqlx::PgPool;

use crate::classify::{LinkLost, sink_error};
use crate::conn::PostgresConn;
use crate::servers::{NoServer, Servers};

/// The connections of a sink. Clones share them.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) pool: PgPool,
    password: Option<CachedPassword>,
    servers: Arc<Choice>,
    /// Others use the pool too.
    is_shared: Arc<AtomicBool>,
}

#[derive(Default)]
struct Choice {
    servers: Servers,
    limit: Duration,
    /// The server is to be chosen before the next connection.
    is_open: AtomicBool,
    choosing: tokio::sync::Mutex<()>,
}

impl Source {
    /// A pool that is used as it is.
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, password: None, servers: Arc::default(), is_shared: Arc::new(AtomicBool::new(true)) }
    }

    /// A pool whose password and server may change. `is_open`: no server was chosen yet.
    pub(crate) fn changing(
        pool: PgPool,
        password: Option<CachedPassword>,
        servers: Servers,
        limit: Duration,
        is_open: bool,
    ) -> Self {
        let is_open = AtomicBool::new(is_open && servers.are_several());
        let servers = Arc::new(Choice { servers, limit, is_open, ..Choice::default() });
        Self { pool, password, servers, is_shared: Arc::default() }
    }

    /// The pool, for others to use.
    pub(crate) fn share(&self) -> &PgPool {
        self.is_shared.store(true, Ordering::Release);
        &self.pool
    }

    async fn take(&self) -> Result<PostgresConn, SinkError> {
        let conn = self.pool.acquire().await.map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
        Ok(PostgresConn::new(conn, self.is_shared.load(Ordering::Acquire)))
    }

    /// A connection.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub(crate) async fn acquire(&self) -> Result<PostgresConn, SinkError> {
        self.refresh().await?;
        let error = match self.take().await {
            Ok(conn) => return Ok(conn),
            Err(error) => error,
        };
        match &self.password {
            // A token may end before the time that its provider said.
            Some(password) if matches!(error.code(), Some("28P01" | "28000")) => {
                password.refused().await;
                if !self.renew(password).await? {
                    return Err(error);
                }
            }
            _ if self.servers.servers.are_several() => {
                self.reconsider();
                self.choose().await?;
            }
            _ => return Err(error),
        }
        self.take().await
    }

    /// Makes new connections use the password and the server of now.
    ///
    /// # Errors
    /// There is no password, or no server.
    pub(crate) async fn refresh(&self) -> Result<(), SinkError> {
        if let Some(password) = &self.password {
            self.renew(password).await?;
        }
        if self.servers.is_open.load(Ordering::Acquire) { self.choose().await } else { Ok(()) }
    }

    /// The server turned out not to be the right one, as after a failover.
    pub(crate) fn reconsider(&self) {
        if self.servers.servers.are_several() {
            self.servers.is_open.store(true, Ordering::Release);
        }
    }

    /// Whether the password is another one.
    async fn renew(&self, password: &CachedPassword) -> Result<bool, SinkError> {
        let (text, is_new) = password.get().await?;
        if is_new {
            self.pool.set_connect_options((*self.pool.connect_options()).clone().password(&text));
        }
        Ok(is_new)
    }

    async fn choose(&self) -> Result<(), SinkError> {
        let _one_at_a_time = self.servers.choosing.lock().await;
        if !self.servers.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let options = (*self.pool.connect_options()).clone();
        let chosen = self.servers.servers.choose(&options, self.servers.limit).await.map_err(|none| match none {
            NoServer::Failed(_, error) => sink_error(error, LinkLost::BeforeCommit),
            NoServer::TimedOut(_) => {
                SinkError::new(ErrorClass::Transient, "no server answers within connect_timeout; check the hosts")
            }
            NoServer::ReadOnly => SinkError::new(
                ErrorClass::Resource,
                "each server that answers is read-only; wait for the failover, or name the primary",
            ),
        })?;
        self.pool.set_connect_options(chosen);
        self.servers.is_open.store(false, Ordering::Release);
        Ok(())
    }
}
