//! Owns connections: how one is made, whether it may still be used, and the pool of those that nobody uses.
//! Must not know rows or commands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use batchsql_core::{ErrorClass, PoolState, SinkError};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, ProtocolVersion, PushInfo,
    PushKind, RedisResult, Value,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::classify::{connect_error, is_refusal};
use crate::options::{OpenError, RedisOptions};

/// One connection to one server, used by one batch at a time.
///
/// It may be used again only when every reply was read: a link that was left in the middle is dropped, which
/// closes it.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    is_lost: Arc<AtomicBool>,
    /// Something was sent, and not all replies were read.
    is_busy: bool,
    /// With version 2 of the protocol the client does not say when a connection is lost.
    tells_loss: bool,
}

impl Link {
    /// Sends the commands together; `replies` is how many replies they have.
    ///
    /// # Cancel safety
    /// When it is dropped, the link is of no more use and says so.
    pub(crate) async fn send(&mut self, pipeline: &Pipeline, replies: usize) -> RedisResult<Vec<Value>> {
        self.is_busy = true;
        let result = self.connection.req_packed_commands(pipeline, 0, replies).await;
        self.is_busy = result.is_err();
        result
    }

    /// Sends one command.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub(crate) async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.is_busy = true;
        let result = self.connection.req_packed_command(command).await;
        self.is_busy = result.is_err();
        result?.extract_error()
    }

    /// Whether it can be used, as far as this side knows.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_busy && !self.is_lost.load(Ordering::Acquire)
    }
}

/// The connections of a sink.
pub(crate) struct Pool {
    options: RedisOptions,
    permits: Arc<Semaphore>,
    idle: Mutex<HashMap<String, Vec<Link>>>,
    /// Connections of batches that are being written.
    used: AtomicUsize,
    /// Whether the server was found to have only version 2 of the protocol.
    is_old: AtomicBool,
}

/// The right to use one connection to each server.
pub(crate) struct Lease {
    pub(crate) pool: Arc<Pool>,
    links: HashMap<String, Link>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(options: RedisOptions) -> Self {
        let permits = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        let (idle, used, is_old) = Default::default();
        Self { options, permits, idle, used, is_old }
    }

    pub(crate) fn options(&self) -> &RedisOptions {
        &self.options
    }

    pub(crate) fn state(&self) -> PoolState {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum();
        PoolState { in_use: self.used.load(Ordering::Relaxed), idle, max: self.options.max_connections }
    }

    /// Waits for a turn. Connections are made when they are asked for.
    pub(crate) async fn lease(self: &Arc<Self>) -> Lease {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        Lease { pool: Arc::clone(self), links: HashMap::new(), _permit: permit }
    }

    /// Makes a connection, within the connect timeout.
    async fn connect(&self, server: &ConnectionInfo) -> RedisResult<Link> {
        match self.options.protocol {
            Some(version) => self.connect_with(server, version).await,
            None if self.is_old.load(Ordering::Relaxed) => self.connect_with(server, ProtocolVersion::RESP2).await,
            None => match self.connect_with(server, ProtocolVersion::RESP3).await {
                Err(error) if error.kind() == ErrorKind::RESP3NotSupported => {
                    self.is_old.store(true, Ordering::Relaxed);
                    self.connect_with(server, ProtocolVersion::RESP2).await
                }
                result => result,
            },
        }
    }

    async fn connect_with(&self, server: &ConnectionInfo, version: ProtocolVersion) -> RedisResult<Link> {
        let is_lost = Arc::new(AtomicBool::new(false));
        // Without a name for the client, which makes the answer of a server that is full get lost: `redis` waits for
        // the answer to the name.
        let settings = server.redis_settings().clone().set_protocol(version).set_skip_set_lib_name();
        // The pipeline's statement_timeout bounds a write; a reply that is late is not a lost one.
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connect_timeout))
            .set_response_timeout(None);
        let tells_loss = version.supports_resp3();
        if tells_loss {
            let is_lost = Arc::clone(&is_lost);
            config = config.set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    is_lost.store(true, Ordering::Release);
                }
                Ok::<(), redis::aio::SendError>(())
            });
        }
        #[cfg(feature = "tls")]
        choose_cryptography(server.addr());
        let client = Client::open(server.clone().set_redis_settings(settings))?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Link { connection, is_lost, is_busy: false, tells_loss })
    }

    fn take_idle(&self, place: &str) -> Option<Link> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place)?.pop()
    }

    /// Keeps links for the next batch, as many for each server as batches can be written at once.
    fn give_back(&self, links: impl Iterator<Item = (String, Link)>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, link) in links.filter(|(_, link)| link.is_usable()) {
            let others = idle.entry(place).or_default();
            if others.len() < self.options.max_connections {
                others.push(link);
            }
        }
    }

    /// Closes idle connections to servers that are not in the cluster any more.
    pub(crate) fn forget_all_but(&self, is_known: impl Fn(&str) -> bool) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).retain(|place, _| is_known(place));
    }
}

impl Lease {
    /// The connection to a server, made if there is none. Nothing was sent on it yet.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the connection.
    pub(crate) async fn link(&mut self, server: &ConnectionInfo) -> Result<&mut Link, SinkError> {
        let place = server.addr().to_string();
        if let Some(link) = self.links.remove(&place) {
            self.pool.used.fetch_sub(1, Ordering::Relaxed);
            if link.is_usable() {
                return Ok(self.keep(place, link));
            }
        }
        while let Some(mut link) = self.pool.take_idle(&place) {
            // If it was lost since its last batch, this lets its task find out before anything is sent.
            tokio::task::yield_now().await;
            let is_alive = link.is_usable() && (link.tells_loss || link.ask(&redis::cmd("PING")).await.is_ok());
            if is_alive {
                return Ok(self.keep(place, link));
            }
        }
        let link = self.pool.connect(server).await.map_err(|error| connect_error(&error, &place))?;
        Ok(self.keep(place, link))
    }

    /// The connections that were asked for, by place, to use several at once.
    pub(crate) fn links(&mut self) -> impl Iterator<Item = (&str, &mut Link)> {
        self.links.iter_mut().map(|(place, link)| (place.as_str(), link))
    }

    fn keep(&mut self, place: String, link: Link) -> &mut Link {
        self.pool.used.fetch_add(1, Ordering::Relaxed);
        self.links.entry(place).insert_entry(link).into_mut()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.links.len(), Ordering::Relaxed);
        self.pool.give_back(self.links.drain());
    }
}

/// `redis` takes the cryptography of the process, and panics when there is none or a choice of several: then it is
/// that of this crate. What the application chose stays.
#[cfg(feature = "tls")]
fn choose_cryptography(addr: &ConnectionAddr) {
    if matches!(addr, ConnectionAddr::TcpTls { .. }) && rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error says that another thread was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Connects for the first time, to find out at once whether the server can be used.
pub(crate) async fn check(pool: &Arc<Pool>) -> Result<(), OpenError> {
    let mut problems = Vec::new();
    let mut lease = pool.lease().await;
    for seed in &pool.options.seeds {
        match first_words(&mut lease, seed, pool.options.connect_timeout).await {
            Ok(()) => return Ok(()),
            Err(problem) => problems.push(problem),
        }
    }
    Err(OpenError::new(problems.join("; ")))
}

async fn first_words(lease: &mut Lease, seed: &ConnectionInfo, patience: Duration) -> Result<(), String> {
    let place = seed.addr().to_string();
    let link = lease.link(seed).await.map_err(|error| error.to_string())?;
    match tokio::time::timeout(patience, link.ask(&redis::cmd("PING"))).await {
        Ok(Ok(_)) => Ok(()),
        // It answers, so it is there; whether it takes commands is seen when it gets some.
        Ok(Err(error)) if is_refusal(&error) && connect_error(&error, &place).class() == ErrorClass::Transient => {
            Ok(())
        }
        Ok(Err(error)) => Err(connect_error(&error, &place).to_string()),
        Err(_) => Err(format!("redis at {place} takes connections but does not answer within {patience:?}")),
    }
}

/// The way to another server of the same cluster.
pub(crate) fn with_host(server: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let addr = match server.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    server.clone().set_addr(addr)
}
