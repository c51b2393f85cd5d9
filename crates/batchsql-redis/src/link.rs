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
use tokio::time::{Instant, timeout, timeout_at};

use crate::classify::{code_of, connect_error, is_of_another_role, is_refusal, silent};
use crate::client::{Client as ServerClient, ClientName, Clients, Sending};
use crate::fan_out::{Task, first_ok, join_all, stagger_delay};
use crate::options::{AbandonedWrites, OpenError, RedisOptions};

/// One connection to one server, used by one batch at a time.
///
/// It may be used again only when every reply was read: a link that was left in the middle is dropped, which
/// closes it.
pub(crate) struct Link {
    /// How the server names it.
    pub(crate) client: Arc<ServerClient>,
    connection: MultiplexedConnection,
    is_lost: Arc<AtomicBool>,
    /// Something was sent, and not all replies were read.
    is_busy: bool,
    /// The server takes no writes any more: behind its name there may be another one by now.
    is_outdated: bool,
    /// How long the answer to a question may take.
    answer_timeout: Duration,
    /// With version 2 of the protocol the client does not say when a connection is lost.
    reports_loss: bool,
}

impl Link {
    /// Sends the commands together; `replies` is how many replies they have.
    ///
    /// # Cancel safety
    /// When it is dropped, the link is of no more use and says so.
    pub(crate) async fn send(&mut self, pipeline: &Pipeline, replies: usize) -> RedisResult<Vec<Value>> {
        self.is_busy = true;
        let sending = Sending::on(&self.client);
        let result = self.connection.req_packed_commands(pipeline, 0, replies).await;
        self.is_busy = result.is_err();
        if let Ok(values) = &result {
            sending.answered();
            self.is_outdated |= values.iter().any(says_another_role);
        }
        result
    }

    /// Sends one command, whose answer may take as long as a connection.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub(crate) async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.is_busy = true;
        let asked = timeout(self.answer_timeout, self.connection.req_packed_command(command));
        let result = asked.await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        self.is_busy = result.is_err();
        let answer = result?.extract_error();
        self.is_outdated |= answer.as_ref().is_err_and(|error| error.code().is_some_and(is_of_another_role));
        answer
    }

    /// Whether the server is there. Who may not ask is answered too.
    async fn is_alive(&mut self) -> bool {
        match self.ask(&redis::cmd("PING")).await {
            Ok(_) => true,
            Err(error) => error.code() == Some("NOPERM"),
        }
    }

    /// Whether it can be used, as far as this side knows.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_busy && !self.is_outdated && !self.is_lost.load(Ordering::Acquire)
    }

    /// Says that it was left in a state that the next batch must not meet.
    pub(crate) fn mark_unusable(&mut self) {
        self.is_busy = true;
    }
}

fn says_another_role(value: &Value) -> bool {
    match value {
        Value::ServerError(error) => is_of_another_role(code_of(error)),
        // The replies of a transaction.
        Value::Array(inner) => inner.iter().any(|v| matches!(v, Value::ServerError(e) if is_of_another_role(e.code()))),
        _ => false,
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
    /// Somebody was told that clients cannot be ended.
    has_warned: AtomicBool,
}

/// The right to use one connection to each server.
pub(crate) struct Lease {
    pub(crate) pool: Arc<Pool>,
    links: HashMap<String, Link>,
    /// The clients of the links that it has, and of those that it had and left in the middle.
    pub(crate) clients: Arc<Clients>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(options: RedisOptions) -> Self {
        let permits = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        let (idle, used, is_old, has_warned) = Default::default();
        Self { options, permits, idle, used, is_old, has_warned }
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
        Lease { pool: Arc::clone(self), links: HashMap::new(), clients: Arc::default(), _permit: permit }
    }

    /// A connection that nobody uses, or a new one, within the connect timeout.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the connection.
    pub(crate) async fn open(&self, server: &ConnectionInfo) -> Result<Link, SinkError> {
        let address = server.addr().to_string();
        let opened = timeout(self.options.connect_timeout, async {
            while let Some(mut link) = self.take_idle(&address) {
                // If it was lost since its last batch, this lets its task find out before anything is sent.
                tokio::task::yield_now().await;
                if link.is_usable() && (link.reports_loss || link.is_alive().await) {
                    return Ok(link);
                }
            }
            self.connect(server).await.map_err(|error| connect_error(&error, &address))
        });
        opened.await.unwrap_or_else(|_| Err(silent(&address)))
    }

    /// Makes a connection and asks for its name, in one round trip more.
    async fn connect(&self, server: &ConnectionInfo) -> RedisResult<Link> {
        if self.options.abandoned_writes == AbandonedWrites::Wait {
            return self.connect_unnamed(server).await;
        }
        // A proxy may hang up on commands that it does not know. So may a server that is stopped just now.
        for _ in 0..2 {
            let mut link = self.connect_unnamed(server).await?;
            let questions = ClientName::questions();
            if let Ok(replies) = link.connection.req_packed_commands(&questions, 0, questions.len()).await {
                link.client = Arc::new(ServerClient::new(server.clone(), ClientName::new(&replies)));
                return Ok(link);
            }
        }
        self.connect_unnamed(server).await
    }

    async fn connect_unnamed(&self, server: &ConnectionInfo) -> RedisResult<Link> {
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
        // `open` bounds the making of the connection.
        let mut config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let reports_loss = version.supports_resp3();
        if reports_loss {
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
        let answer_timeout = self.options.connect_timeout;
        let client = Arc::new(ServerClient::new(server.clone(), None));
        Ok(Link { client, connection, is_lost, is_busy: false, is_outdated: false, answer_timeout, reports_loss })
    }

    /// Says once that a batch that is given up may have a late effect.
    pub(crate) fn warn_of_clients(&self) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                address = self.options.address(),
                "the connection of a batch that is given up cannot be ended, so such a batch may still overwrite newer \
                 rows; allow the user CLIENT ID, CLIENT KILL, CLIENT LIST and INFO, or say by late_write_limit how long \
                 that is possible"
            );
        }
    }

    fn take_idle(&self, address: &str) -> Option<Link> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(address)?.pop()
    }

    /// Keeps links for the next batch, as many for each server as batches can be written at once.
    pub(crate) fn give_back(&self, links: impl Iterator<Item = (String, Link)>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for (address, link) in links {
            if link.is_outdated {
                // So are the others to this address.
                idle.remove(&address);
            }
            if !link.is_usable() {
                continue;
            }
            let others = idle.entry(address).or_default();
            if others.len() < self.options.max_connections {
                others.push(link);
            }
        }
    }

    /// Closes idle connections to servers that are not in the cluster any more.
    pub(crate) fn forget_all_but(&self, is_known: impl Fn(&str) -> bool) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| is_known(address));
    }
}

impl Lease {
    /// The connection to a server, made if there is none. Nothing was sent on it yet.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the connection.
    pub(crate) async fn link(&mut self, server: &ConnectionInfo) -> Result<&mut Link, SinkError> {
        let address = server.addr().to_string();
        if !self.has(&address) {
            let link = self.pool.open(server).await?;
            self.keep(address.clone(), link);
        }
        Ok(self.links.get_mut(&address).expect("it was there, or is just made"))
    }

    /// The connections to several servers, made at the same time; afterwards [`links`](Self::links) has those that
    /// are here without an error.
    pub(crate) async fn open_all(&mut self, servers: &[(usize, &ConnectionInfo)]) -> HashMap<usize, SinkError> {
        let mut tasks: Vec<Task<'_, _>> = Vec::new();
        for (number, server) in servers {
            let (pool, address) = (Arc::clone(&self.pool), server.addr().to_string());
            if !self.has(&address) {
                tasks.push(Box::pin(async move { (*number, address, pool.open(server).await) }));
            }
        }
        let mut errors = HashMap::new();
        for (number, address, opened) in join_all(tasks).await {
            match opened {
                Ok(link) => self.keep(address, link),
                Err(error) => drop(errors.insert(number, error)),
            }
        }
        errors
    }

    /// A connection that it has already, or one to any of the servers of the DSN.
    pub(crate) async fn any_link(&mut self) -> Result<(String, &mut Link), SinkError> {
        let here = self.links.iter().find(|(_, link)| link.is_usable()).map(|(address, _)| address.clone());
        if let Some(address) = here {
            let link = self.links.get_mut(&address).expect("it was just found there");
            return Ok((address, link));
        }
        let pool = Arc::clone(&self.pool);
        let tasks = pool.options.seeds.iter().enumerate().map(|(turn, seed)| -> Task<'_, _> {
            let pool = &pool;
            Box::pin(async move {
                tokio::time::sleep(stagger_delay(turn, pool.options.connect_timeout)).await;
                pool.open(seed).await.map(|link| (seed.addr().to_string(), link))
            })
        });
        match first_ok(tasks.collect()).await {
            Ok((address, link)) => {
                self.keep(address.clone(), link);
                let link = self.links.get_mut(&address).expect("it was just put there");
                Ok((address, link))
            }
            Err(mut errors) => Err(errors.pop().expect("a dsn names a host")),
        }
    }

    /// Whether there is a connection to an address that can be used; others are given up.
    fn has(&mut self, address: &str) -> bool {
        let Some(link) = self.links.get(address) else { return false };
        if link.is_usable() {
            return true;
        }
        if let Some(link) = self.links.remove_entry(address) {
            self.pool.used.fetch_sub(1, Ordering::Relaxed);
            self.pool.give_back(std::iter::once(link));
        }
        false
    }

    /// Whether the server names every connection that is here.
    pub(crate) fn has_names(&self) -> bool {
        self.links.values().all(|link| link.client.is_named())
    }

    /// The connections that were asked for, by address, to use several at once.
    pub(crate) fn links(&mut self) -> impl Iterator<Item = (&str, &mut Link)> {
        self.links.iter_mut().map(|(address, link)| (address.as_str(), link))
    }

    /// Takes a connection for this batch. One that it has already to that address is given back.
    pub(crate) fn keep(&mut self, address: String, link: Link) {
        self.clients.add(&link.client);
        match self.links.insert(address.clone(), link) {
            Some(other) => self.pool.give_back(std::iter::once((address, other))),
            None => drop(self.pool.used.fetch_add(1, Ordering::Relaxed)),
        }
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

/// Connects for the first time, to find out at once whether a server can be used. It tries all of them until the
/// deadline, because the first may be silent.
pub(crate) async fn check(pool: &Pool, deadline: Instant) -> Result<(), OpenError> {
    let limit = pool.options.connect_timeout;
    let tasks = pool.options.seeds.iter().enumerate().map(|(turn, seed)| -> Task<'_, _> {
        Box::pin(async move {
            tokio::time::sleep(stagger_delay(turn, limit)).await;
            first_contact(pool, seed, deadline).await
        })
    });
    first_ok(tasks.collect()).await.map_err(|problems| OpenError::new(problems.join("; ")))
}

async fn first_contact(pool: &Pool, seed: &ConnectionInfo, deadline: Instant) -> Result<(), String> {
    let address = seed.addr().to_string();
    let opened = timeout_at(deadline, pool.open(seed)).await.unwrap_or_else(|_| Err(silent(&address)));
    let mut link = opened.map_err(|error| error.to_string())?;
    let result = match timeout_at(deadline, link.ask(&redis::cmd("PING"))).await {
        Ok(Ok(_)) => Ok(()),
        // It answers, so it is there; whether it takes commands is seen when it gets some.
        Ok(Err(error))
            if is_refusal(&error)
                && (connect_error(&error, &address).class() == ErrorClass::Transient
                    || error.code() == Some("NOPERM")) =>
        {
            Ok(())
        }
        Ok(Err(error)) => Err(connect_error(&error, &address).to_string()),
        Err(_) => {
            let limit = pool.options.connect_timeout;
            Err(format!("redis at {address} takes connections but does not answer within {limit:?}"))
        }
    };
    pool.give_back(std::iter::once((address, link)));
    result
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
