//! Owns the cluster: which node serves which slot, and sending one batch to several nodes.
//! Must not know how commands are encoded or what their replies mean.
//!
//! Why not the cluster client of `redis`: it sends a pipeline to one node, and if one command of it is rejected with
//! `MOVED`, `ASK`, `TRYAGAIN`, `LOADING` or `READONLY` it sends all of them again, including those that were executed
//! (`choose_response` in its `cluster_handling/async_connection/request.rs`). Here only the rejected commands are
//! sent again, so that outcomes stay exact.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use batchsql_core::{Attempt, ErrorClass, Rows, SinkError, Written};
use redis::{ConnectionAddr, ConnectionInfo, ServerError, Value};
use tokio::time::{Instant, timeout};

use crate::classify::{connect_error, of_several};
use crate::encode::{Encoded, Encoder};
use crate::fan_out::{Task, first_ok, join_all, stagger_delay};
use crate::link::Link;
use crate::memory::WithoutLargest;
use crate::plan::RedisPlan;
use crate::pool::{LONGEST, Lease, Pool, with_host};
use crate::replies::RowResults;
use crate::slot::{SLOTS, slot};
use crate::write::{ServerBatch, Tried, ask_again, given_up, must_wait, not_sent, number, settle};

/// The most redirections that a row follows in one write. More than one happens only while slots are moved.
const MAX_REDIRECTIONS: usize = 5;

/// No master serves the slot.
const NO_MASTER: u16 = u16::MAX;

/// The known state of the cluster.
#[derive(Default)]
pub(crate) struct Cluster {
    topology: Mutex<Option<Arc<Topology>>>,
    /// An error or a timeout of a node indicates that the topology has changed.
    is_stale: AtomicBool,
}

struct Topology {
    masters: Vec<ConnectionInfo>,
    /// The number of its master for each slot.
    slots: Box<[u16]>,
}

/// The state while one batch is written.
struct ClusterWrite {
    /// The masters, and the targets of redirections.
    servers: Vec<ConnectionInfo>,
    results: RowResults,
    /// The deadline for answers of nodes, counted from the first commands.
    deadline: Option<Instant>,
}

/// A row that must be sent to another node.
struct Redirected {
    row: u32,
    server: usize,
    asking: bool,
    /// An earlier row that may have been executed, see `Sent::suspect`.
    after: Option<u32>,
    /// The node has closed connections at its size.
    tried: Option<Tried>,
}

impl Cluster {
    /// Queries the known nodes and those of the DSN, with staggered starts, until one answers: within the connect
    /// timeout, regardless of how many do not answer.
    ///
    /// # Errors
    /// None of them answers; returns the error of one of them.
    async fn topology(&self, lease: &mut Lease) -> Result<Arc<Topology>, SinkError> {
        let known = self.known();
        if let Some(topology) = known.as_ref().filter(|_| !self.is_stale.load(Ordering::Acquire)) {
            return Ok(Arc::clone(topology));
        }
        let (pool, limit) = (Arc::clone(&lease.pool), lease.pool.options().connect_timeout);
        let mut servers = known.map_or_else(Vec::new, |topology| topology.masters.clone());
        for seed in &pool.options().seeds {
            if servers.iter().all(|server| server.addr() != seed.addr()) {
                servers.push(seed.clone());
            }
        }
        pool.ask_for_password().await?;
        let tasks = servers.iter().enumerate().map(|(turn, server)| -> Task<'_, _> {
            let pool = &pool;
            Box::pin(async move {
                tokio::time::sleep(stagger_delay(turn, limit)).await;
                read_topology(pool, server).await.map(|(topology, link)| (topology, server.addr().to_string(), link))
            })
        });
        let (topology, address, link) = match timeout(limit, first_ok(tasks.collect())).await {
            Ok(found) => found.map_err(of_several)?,
            Err(_) => {
                let text = format!("no node of the cluster reports its slots within {limit:?}");
                return Err(SinkError::new(ErrorClass::Transient, text));
            }
        };
        lease.keep(address, link);
        let topology = Arc::new(topology);
        self.is_stale.store(false, Ordering::Release);
        *self.topology.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&topology));
        let addresses: Vec<String> = topology.masters.iter().map(|node| node.addr().to_string()).collect();
        pool.forget_all_but(|address| addresses.iter().any(|known| known == address));
        Ok(topology)
    }

    fn known(&self) -> Option<Arc<Topology>> {
        self.topology.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The known number of nodes that accept writes.
    pub(crate) fn masters(&self) -> usize {
        self.known().map_or(0, |topology| topology.masters.len())
    }

    /// Whether the other nodes report that this one accepts writes. One node may be outdated, or may have lost its
    /// configuration, so a majority of them must agree. A node that does not answer does not delay the others.
    ///
    /// # Errors
    /// No majority agrees; returns the error of one of them.
    pub(crate) async fn is_master(&self, pool: &Pool, server: &ConnectionInfo) -> Result<bool, SinkError> {
        let mut others: Vec<ConnectionInfo> = Vec::new();
        let known = self.known().map_or_else(Vec::new, |topology| topology.masters.clone());
        for other in known.into_iter().chain(pool.options().seeds.iter().cloned()) {
            if other.addr() != server.addr() && others.iter().all(|known| known.addr() != other.addr()) {
                others.push(other);
            }
        }
        if others.is_empty() {
            return Ok(true);
        }
        let limit = pool.options().connect_timeout;
        let (votes, most) = ([AtomicUsize::new(0), AtomicUsize::new(0)], others.len() / 2 + 1);
        let tasks = others.iter().enumerate().map(|(turn, other)| -> Task<'_, _> {
            let votes = &votes;
            Box::pin(async move {
                tokio::time::sleep(stagger_delay(turn, limit)).await;
                let (topology, link) = read_topology(pool, other).await?;
                pool.give_back(std::iter::once((other.addr().to_string(), link)));
                // A node that knows of no master has lost its configuration.
                if topology.masters.is_empty() {
                    return Err(no_majority());
                }
                let is_master = topology.masters.iter().any(|master| master.addr() == server.addr());
                let agreeing = votes[usize::from(is_master)].fetch_add(1, Ordering::SeqCst) + 1;
                if agreeing >= most { Ok(is_master) } else { Err(no_majority()) }
            })
        });
        first_ok(tasks.collect()).await.map_err(of_several)
    }

    /// Checks whether there is a cluster.
    ///
    /// # Errors
    /// No node can be reached, or the answering server is not a cluster.
    pub(crate) async fn check(&self, lease: &mut Lease) -> Result<(), SinkError> {
        self.topology(lease).await.map(drop)
    }

    /// Writes a batch to all of its nodes concurrently.
    ///
    /// # Errors
    /// As `write_to_server`; a node that cannot be reached affects only its rows.
    ///
    /// # Cancel safety
    /// Sent commands may be executed; the links are marked as unusable.
    pub(crate) async fn write(
        &self,
        lease: &mut Lease,
        plan: &RedisPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        attempt.defer();
        let topology = self.topology(lease).await?;
        let mut write =
            ClusterWrite { servers: topology.masters.clone(), results: RowResults::default(), deadline: None };
        let mut encoder = Encoder::new(plan, rows);
        let mut batches = BatchesByServer::default();
        for row in 0..rows.len() {
            match encoder.row(row).and_then(|encoded| Ok((topology.master_of(&encoded, plan)?, encoded))) {
                Ok((master, encoded)) => {
                    batches.of(master).add(number(row), &encoded, false);
                    encoder.recycle(encoded);
                }
                Err(error) => {
                    self.mark_stale_if_transient(&error);
                    write.results.failed.push((number(row), error));
                }
            }
        }
        for _ in 0..=MAX_REDIRECTIONS {
            let redirected = self.send(lease, plan, batches, &mut write, attempt).await?;
            batches = BatchesByServer::default();
            let redirected_rows: Vec<u32> = redirected.iter().map(|redirected| redirected.row).collect();
            let undone = match redirected_rows.is_empty() {
                true => HashSet::new(),
                false => write
                    .results
                    .undone(&redirected_rows, plan, number(rows.len()), |row| encoder.overwrite_key(row as usize)),
            };
            // The overwrite keys of large rows with an unknown outcome.
            let mut suspects: HashMap<u32, Option<Vec<u8>>> = HashMap::new();
            for Redirected { row, server, asking, after, tried } in redirected {
                if let Some(suspect) = after {
                    let earlier =
                        suspects.entry(suspect).or_insert_with(|| encoder.overwrite_key(suspect as usize)).as_deref();
                    if must_wait(&mut encoder, earlier, row) {
                        write.results.failed.push((row, not_sent()));
                        continue;
                    }
                }
                // A later row with its key was written in the meantime.
                if undone.contains(&row) {
                    write.results.failed.push((row, slot_migrating()));
                    continue;
                }
                match encoder.row(row as usize) {
                    // ASKING applies to one command only, which would be MULTI.
                    Ok(Encoded { second: Some(_), .. }) if asking => write.results.failed.push((row, slot_migrating())),
                    Ok(encoded) => {
                        let batch = batches.of(server);
                        batch.add(row, &encoded, asking);
                        batch.tried = tried.or(batch.tried);
                        encoder.recycle(encoded);
                    }
                    Err(error) => write.results.failed.push((row, error)),
                }
            }
            if batches.0.is_empty() {
                break;
            }
        }
        write.results.failed.extend(batches.0.values().flat_map(ServerBatch::rows).map(|row| (row, slot_migrating())));
        let mut without_largest = WithoutLargest::new();
        loop {
            let smaller = without_largest.next(&mut write.results, plan, number(rows.len()), &mut encoder);
            if smaller.is_empty() {
                break;
            }
            // Their buffers at the servers have the size of the largest row.
            lease.links().for_each(|(_, link)| link.mark_unusable());
            let mut batches = BatchesByServer::default();
            for row in smaller {
                match encoder.row(row as usize).and_then(|encoded| Ok((topology.master_of(&encoded, plan)?, encoded))) {
                    Ok((master, encoded)) => batches.of(master).add(row, &encoded, false),
                    Err(error) => write.results.failed.push((row, error)),
                }
            }
            let redirected = self.send(lease, plan, batches, &mut write, attempt).await?;
            write.results.failed.extend(redirected.iter().map(|redirected| (redirected.row, slot_migrating())));
        }
        if lease.pool.options().password.is_some() {
            write.results.failed.iter_mut().for_each(|(_, error)| ask_again(error));
        }
        settle(write.results, plan, rows)
    }

    /// Sends each server its commands and records the replies; returns the rows that were redirected, in
    /// order.
    async fn send(
        &self,
        lease: &mut Lease,
        plan: &RedisPlan,
        batches: BatchesByServer,
        ClusterWrite { servers, results, deadline }: &mut ClusterWrite,
        attempt: &Attempt,
    ) -> Result<Vec<Redirected>, SinkError> {
        let by_number: Vec<_> = batches.0.keys().map(|server| (*server, &servers[*server])).collect();
        let mut problems = lease.open_all(&by_number).await;
        let mut by_address: HashMap<String, ServerBatch> = HashMap::with_capacity(by_number.len());
        for (server, batch) in batches.0 {
            match problems.remove(&server) {
                None => drop(by_address.insert(servers[server].addr().to_string(), batch)),
                Some(error) => {
                    self.is_stale.store(true, Ordering::Release);
                    results.failed.extend(batch.rows().map(|row| (row, error.clone())));
                }
            }
        }
        let now = Instant::now();
        let deadline = *deadline.get_or_insert(now + lease.pool.options().node_timeout.min(LONGEST));
        if now >= deadline {
            // Nothing of these was sent, and there is no time left for the answer.
            results.failed.extend(by_address.values().flat_map(ServerBatch::rows).map(|row| (row, slot_migrating())));
            by_address.clear();
        }
        // In a later round the batch was already sent to some nodes, so it continues.
        if !attempt.begin() {
            return Err(given_up());
        }
        let mut sends: Vec<Task<'_, _>> = Vec::with_capacity(by_address.len());
        for (address, link) in lease.links() {
            if let Some(batch) = by_address.remove(address) {
                sends.push(Box::pin(async move {
                    let sent = batch.send(link, address, Some(deadline)).await;
                    (address, sent)
                }));
            }
        }
        let mut redirected = Vec::new();
        for (address, sent) in join_all(sends).await {
            if sent.failed.iter().any(|(_, error)| error.class() == ErrorClass::Unknown) {
                self.is_stale.store(true, Ordering::Release);
            }
            for answer in sent.answers() {
                let row = answer.row;
                let Some(error) = results.enter(plan, answer) else { continue };
                let asking = error.code() == "ASK";
                if !asking {
                    self.is_stale.store(true, Ordering::Release);
                }
                match target(error, address, servers) {
                    Some(server) => redirected.push(Redirected { row, server, asking, after: None, tried: None }),
                    None => results.failed.push((row, slot_migrating())),
                }
            }
            // An earlier row was too large for the node, which closed the connection.
            if let Some(server) = servers.iter().position(|server| server.addr().to_string() == address) {
                let again = |row: &u32| {
                    let tried = sent.tried.filter(|tried| tried.row == *row);
                    Redirected { row: *row, server, asking: false, after: sent.suspect, tried }
                };
                redirected.extend(sent.unsent.iter().map(again));
            }
            results.failed.extend(sent.failed);
        }
        // Every address has a connection; if one had none, its rows would still get an outcome.
        results.failed.extend(by_address.values().flat_map(ServerBatch::rows).map(|row| (row, slot_migrating())));
        results.failed.iter().for_each(|(_, error)| self.mark_stale_if_transient(error));
        redirected.sort_unstable_by_key(|redirected| redirected.row);
        Ok(redirected)
    }

    /// A node that is down, loading or read-only may have been replaced.
    fn mark_stale_if_transient(&self, error: &SinkError) {
        if error.is_retryable() && error.code() != Some("OOM") {
            self.is_stale.store(true, Ordering::Release);
        }
    }
}

impl Topology {
    fn master_of(&self, encoded: &Encoded, plan: &RedisPlan) -> Result<usize, SinkError> {
        let master = match plan.key_argument {
            // For a command without its key any node returns the error.
            Some(argument) => self.slots[slot(encoded.command.argument(argument))],
            None if self.masters.is_empty() => NO_MASTER,
            None => 0,
        };
        match master {
            NO_MASTER => Err(SinkError::with_code(
                ErrorClass::Transient,
                "CLUSTERDOWN",
                "no node of the cluster serves the slot of the key at the moment",
            )),
            master => Ok(master.into()),
        }
    }
}

/// Commands by server.
#[derive(Default)]
struct BatchesByServer(BTreeMap<usize, ServerBatch>);

impl BatchesByServer {
    fn of(&mut self, server: usize) -> &mut ServerBatch {
        self.0.entry(server).or_insert_with(|| ServerBatch::with_capacity(64))
    }
}

/// The number of the redirection's target, which is added to the list if it is new.
fn target(error: &ServerError, address: &str, servers: &mut Vec<ConnectionInfo>) -> Option<usize> {
    let (host, port) = error.details()?.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    let from = servers.iter().find(|server| server.addr().to_string() == address)?;
    let host = if host.is_empty() { host_of(from)? } else { host.to_owned() };
    let named = with_host(from, host, port.parse().ok()?);
    Some(servers.iter().position(|server| server.addr() == named.addr()).unwrap_or_else(|| {
        servers.push(named);
        servers.len() - 1
    }))
}

fn host_of(server: &ConnectionInfo) -> Option<String> {
    match server.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => Some(host.clone()),
        _ => None,
    }
}

fn slot_migrating() -> SinkError {
    let text = "the slot of the key is being moved from node to node";
    SinkError::with_code(ErrorClass::Transient, "TRYAGAIN", text)
}

fn no_majority() -> SinkError {
    let text = "the nodes of the cluster do not agree on whether a node that cannot be reached was replaced";
    SinkError::new(ErrorClass::Transient, text)
}

/// Queries the slots from one node.
async fn read_topology(pool: &Pool, server: &ConnectionInfo) -> Result<(Topology, Link), SinkError> {
    let address = server.addr().to_string();
    let mut link = pool.open(server).await?;
    let reply = link.ask(redis::cmd("CLUSTER").arg("SLOTS")).await.map_err(|error| {
        if error.code() == Some("ERR") {
            let text = format!("redis at {address} is not part of a cluster; remove cluster=true from the dsn");
            return SinkError::with_code(ErrorClass::Schema, "ERR", text);
        }
        connect_error(&error, &address)
    })?;
    let mut topology = Topology { masters: Vec::new(), slots: vec![NO_MASTER; SLOTS].into() };
    let Value::Array(ranges) = reply else { return Ok((topology, link)) };
    for range in ranges {
        let Value::Array(range) = range else { continue };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &*range else { continue };
        let [host, Value::Int(port), ..] = &**master else { continue };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() => String::from_utf8_lossy(host).into_owned(),
            // A node that does not know its own address has the queried address.
            _ => host_of(server).unwrap_or_default(),
        };
        let master = with_host(server, host, u16::try_from(*port).unwrap_or_default());
        let known = topology.masters.iter().position(|node| node.addr() == master.addr());
        let index = known.unwrap_or_else(|| {
            topology.masters.push(master);
            topology.masters.len() - 1
        });
        if let (Ok(first), Ok(last), Ok(index)) =
            (usize::try_from(*first), usize::try_from(*last), u16::try_from(index))
            && let Some(slots) = topology.slots.get_mut(first..=last)
        {
            slots.fill(index);
        }
    }
    Ok((topology, link))
}
