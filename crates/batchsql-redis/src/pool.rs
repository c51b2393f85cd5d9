//! Owns the idle connections, the permits to use connections, and the choice of the server to write to.
//! Must not know rows or commands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use batchsql_core::{ErrorClass, OpenError, PoolState, SinkError};
use redis::{ConnectionAddr, ConnectionInfo};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::classify::{connect_error, is_refusal, of_several, silent};
use crate::client::Clients;
use crate::connect::Connector;
use crate::fan_out::{Task, first_ok, join_all, stagger_delay};
use crate::link::Link;
use crate::options::RedisOptions;
use crate::sentinel;

/// A duration that fits every clock.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// The connections of a sink.
pub(crate) struct Pool {
    connector: Connector,
    permits: Arc<Semaphore>,
    idle: Mutex<HashMap<String, Vec<Link>>>,
    /// Connections of batches that are being written.
    used: AtomicUsize,
    /// The last named master, and the number of the sentinel that named it.
    master: Mutex<Option<(ConnectionInfo, usize)>>,
    /// The number of the sentinel that is queried first.
    first_sentinel: AtomicUsize,
    /// The warning that clients cannot be ended was logged.
    has_warned: AtomicBool,
}

/// The successor of a master that cannot be reached.
pub(crate) enum Successor {
    /// A majority of sentinels name the same other server.
    Agreed,
    /// A server that a sentinel names was reached and reports that it is the master.
    Reached(Box<Link>),
}

/// The permit to use one connection to each server.
pub(crate) struct Lease {
    pub(crate) pool: Arc<Pool>,
    links: HashMap<String, Link>,
    /// The clients of its links, and of earlier links that were interrupted during a batch.
    pub(crate) clients: Arc<Clients>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(options: RedisOptions) -> Self {
        let permits = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        let (idle, used, master, first_sentinel, has_warned) = Default::default();
        Self { connector: Connector::new(options), permits, idle, used, master, first_sentinel, has_warned }
    }

    pub(crate) fn options(&self) -> &RedisOptions {
        &self.connector.options
    }

    /// The server to write to: that of the DSN, or the master that the sentinels name.
    ///
    /// # Errors
    /// No sentinel names one.
    pub(crate) async fn server(&self) -> Result<ConnectionInfo, SinkError> {
        let Some(sentinels) = &self.options().sentinels else { return Ok(self.options().seeds[0].clone()) };
        let known = self.master.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((master, _)) = known {
            return Ok(master);
        }
        let first = self.first_sentinel.load(Ordering::Relaxed);
        let ((host, port), number) = sentinel::master(&self.connector, sentinels, first).await?;
        let master = with_host(&self.options().seeds[0], host, port);
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) = Some((master.clone(), number));
        Ok(master)
    }

    /// The successor of a master that cannot be reached. One sentinel may be outdated, so its answer is not enough: a
    /// majority must agree, or the named server itself must report that it is the master. A sentinel that does not
    /// answer does not delay the others.
    ///
    /// # Errors
    /// The successor is not known.
    pub(crate) async fn successor(&self, server: &ConnectionInfo) -> Result<Successor, SinkError> {
        let not_known = || SinkError::new(ErrorClass::Transient, "the sentinels do not agree on another master");
        let Some(sentinels) = &self.options().sentinels else { return Err(not_known()) };
        let others = Mutex::new(Vec::new());
        let tasks = sentinels.hosts.iter().map(|host| -> Task<'_, _> {
            let others = &others;
            Box::pin(async move {
                let named = sentinel::ask(&self.connector, host, &sentinels.master).await?;
                if with_host(&self.options().seeds[0], named.0.clone(), named.1).addr() == server.addr() {
                    return Err(not_known());
                }
                let agreeing = {
                    let mut others = others.lock().unwrap_or_else(PoisonError::into_inner);
                    others.push(named.clone());
                    others.iter().filter(|other| **other == named).count()
                };
                if agreeing > 1 && agreeing * 2 > sentinels.hosts.len() {
                    return Ok(Successor::Agreed);
                }
                let other = with_host(&self.options().seeds[0], named.0, named.1);
                let mut link = self.open(&other).await?;
                if sentinel::is_master(&mut link).await {
                    Ok(Successor::Reached(Box::new(link)))
                } else {
                    Err(not_known())
                }
            })
        });
        first_ok(tasks.collect()).await.map_err(of_several)
    }

    /// The server that the sentinel named is not a master: another sentinel is queried first.
    fn distrust_sentinel(&self, server: &ConnectionInfo) {
        let master = self.master.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((named, number)) = &*master
            && named.addr() == server.addr()
        {
            self.first_sentinel.store(number + 1, Ordering::Relaxed);
        }
    }

    /// Makes the next batch query the sentinels again.
    fn forget_master(&self) {
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn state(&self) -> PoolState {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum();
        PoolState { in_use: self.used.load(Ordering::Relaxed), idle, max: self.options().max_connections }
    }

    /// Waits for a permit. Connections are opened on demand.
    pub(crate) async fn lease(self: &Arc<Self>) -> Lease {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        Lease { pool: Arc::clone(self), links: HashMap::new(), clients: Arc::default(), _permit: permit }
    }

    /// Gets the password before an operation with a short timeout. Connections otherwise get it themselves.
    ///
    /// # Errors
    /// The provider has none, or exceeds the timeout.
    pub(crate) async fn ask_for_password(&self) -> Result<(), SinkError> {
        self.connector.password().await.map(drop)
    }

    /// An idle connection, or a new one, within the connect timeout plus that of the password provider.
    ///
    /// # Errors
    /// The server cannot be reached, or rejects the connection.
    pub(crate) async fn open(&self, server: &ConnectionInfo) -> Result<Link, SinkError> {
        let opened = self.idle_or_new(server, &server.addr().to_string()).await;
        if opened.is_err() {
            self.forget_master();
        }
        opened
    }

    async fn idle_or_new(&self, server: &ConnectionInfo, address: &str) -> Result<Link, SinkError> {
        let mut deadline = Instant::now() + self.options().connect_timeout.min(LONGEST);
        let idle = timeout_at(deadline, async {
            while let Some(mut link) = self.take_idle(address) {
                // If it was lost since its last batch, this lets its task detect that before anything is
                // sent.
                tokio::task::yield_now().await;
                if link.is_usable() && (link.reports_loss || link.is_alive().await) {
                    return Some(link);
                }
            }
            None
        });
        if let Some(link) = idle.await.map_err(|_| silent(address))? {
            return Ok(link);
        }
        let mut link = self.connector.connect(server, &mut deadline).await?;
        if self.options().sentinels.is_some() {
            let checked = timeout_at(deadline, sentinel::check_role(&mut link, address)).await;
            checked.unwrap_or_else(|_| Err(silent(address))).inspect_err(|_| self.distrust_sentinel(server))?;
        }
        Ok(link)
    }

    /// Warns once that an abandoned batch may take effect late.
    pub(crate) fn warn_of_clients(&self) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                address = self.options().address(),
                "the connection of an abandoned batch cannot be ended, so such a batch may still overwrite newer \
                 rows; allow the user CLIENT ID, CLIENT KILL, CLIENT LIST and INFO, or say by late_write_limit how long \
                 that is possible"
            );
        }
    }

    fn take_idle(&self, address: &str) -> Option<Link> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(address)?.pop()
    }

    /// Keeps links for the next batch: per server at most as many as there are concurrent batches.
    pub(crate) fn give_back(&self, links: impl Iterator<Item = (String, Link)>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for (address, link) in links {
            if link.is_outdated() {
                // The other links to this address are outdated too.
                idle.remove(&address);
            }
            if !link.is_usable() {
                self.forget_master();
                continue;
            }
            let others = idle.entry(address).or_default();
            if others.len() < self.options().max_connections {
                others.push(link);
            }
        }
    }

    /// Closes idle connections to servers that are no longer in the cluster.
    pub(crate) fn forget_all_but(&self, is_known: impl Fn(&str) -> bool) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| is_known(address));
    }
}

impl Lease {
    /// The connection to a server, opened if there is none. Nothing was sent on it yet.
    ///
    /// # Errors
    /// The server cannot be reached, or rejects the connection.
    pub(crate) async fn link(&mut self, server: &ConnectionInfo) -> Result<&mut Link, SinkError> {
        let address = server.addr().to_string();
        if !self.has(&address) {
            let link = self.pool.open(server).await?;
            self.keep(address.clone(), link);
        }
        Ok(self.links.get_mut(&address).expect("it was there, or is just made"))
    }

    /// Opens connections to several servers concurrently; afterwards [`links`](Self::links) has those without an
    /// error.
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

    /// An existing connection, or one to any of the servers of the DSN.
    pub(crate) async fn any_link(&mut self) -> Result<(String, &mut Link), SinkError> {
        let here = self.links.iter().find(|(_, link)| link.is_usable()).map(|(address, _)| address.clone());
        if let Some(address) = here {
            let link = self.links.get_mut(&address).expect("it was just found there");
            return Ok((address, link));
        }
        let pool = Arc::clone(&self.pool);
        if !pool.options().is_cluster {
            let server = pool.server().await?;
            let address = server.addr().to_string();
            return self.link(&server).await.map(|link| (address, link));
        }
        let tasks = pool.options().seeds.iter().enumerate().map(|(turn, seed)| -> Task<'_, _> {
            let pool = &pool;
            Box::pin(async move {
                tokio::time::sleep(stagger_delay(turn, pool.options().connect_timeout)).await;
                pool.open(seed).await.map(|link| (seed.addr().to_string(), link))
            })
        });
        match first_ok(tasks.collect()).await {
            Ok((address, link)) => {
                self.keep(address.clone(), link);
                let link = self.links.get_mut(&address).expect("it was just put there");
                Ok((address, link))
            }
            Err(errors) => Err(of_several(errors)),
        }
    }

    /// Whether there is a usable connection to an address; an unusable one is dropped.
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

    /// Whether every connection of the lease has a name at its server.
    pub(crate) fn has_names(&self) -> bool {
        self.links.values().all(|link| link.client.is_named())
    }

    /// The opened connections by address, to use several at once.
    pub(crate) fn links(&mut self) -> impl Iterator<Item = (&str, &mut Link)> {
        self.links.iter_mut().map(|(address, link)| (address.as_str(), link))
    }

    /// Adds a connection for this batch. An existing one to that address is returned.
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

/// Connects for the first time, to check at once whether a server can be used. It tries all servers until the
/// deadline, because the first may not answer.
pub(crate) async fn check(pool: &Pool, deadline: Instant) -> Result<(), OpenError> {
    let limit = pool.options().connect_timeout;
    if !pool.options().is_cluster {
        let server = timeout_at(deadline, pool.server()).await;
        let server = server.unwrap_or_else(|_| Err(silent(&pool.options().address())));
        let server = server.map_err(|error| OpenError::new(error.to_string()))?;
        return first_contact(pool, &server, deadline).await.map_err(OpenError::new);
    }
    let tasks = pool.options().seeds.iter().enumerate().map(|(turn, seed)| -> Task<'_, _> {
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
        // The server answers; whether it accepts commands is checked when rows are written.
        Ok(Err(error))
            if is_refusal(&error)
                && (connect_error(&error, &address).class() == ErrorClass::Transient
                    || error.code() == Some("NOPERM")) =>
        {
            Ok(())
        }
        Ok(Err(error)) => Err(connect_error(&error, &address).to_string()),
        Err(_) => {
            let limit = pool.options().connect_timeout;
            Err(format!("redis at {address} accepts connections but does not answer within {limit:?}"))
        }
    };
    pool.give_back(std::iter::once((address, link)));
    result
}

/// The connection info of another server of the same cluster.
pub(crate) fn with_host(server: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let addr = match server.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    server.clone().set_addr(addr)
}
