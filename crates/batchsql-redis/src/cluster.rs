//! Owns the cluster: which node serves which slot, and the way of one batch to several nodes and back.
//! Must not know how commands are made or what their replies mean.
//!
//! Why not the cluster client of `redis`: it sends a pipeline to one node, and when one command of it is refused
//! with `MOVED`, `ASK`, `TRYAGAIN`, `LOADING` or `READONLY` it sends all of them again, also those that were executed
//! (`choose_response` in its `cluster_handling/async_connection/request.rs`). Here only what was refused is sent
//! again, so that outcomes stay exact.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use batchsql_core::{Attempt, ErrorClass, Rows, SinkError, Written};
use redis::{ConnectionAddr, ConnectionInfo, ServerError, Value};
use tokio::time::{Instant, timeout, timeout_at};

use crate::at_once::{Task, first_ok, head_start, join_all};
use crate::classify::{connect_error, late, lost};
use crate::encode::{Encoded, Encoder, bytes_of};
use crate::link::{Lease, Link, Pool, with_host};
use crate::plan::RedisPlan;
use crate::replies::Tally;
use crate::slot::{SLOTS, slot};
use crate::write::{Shipment, given_up, number, settle};

/// How often a row follows a redirection in one write. More than one happens only while slots are moved.
const MOST_HOPS: usize = 5;

/// Nobody serves the slot.
const NOBODY: u16 = u16::MAX;

/// What is known of the cluster.
#[derive(Default)]
pub(crate) struct Cluster {
    topology: Mutex<Option<Arc<Topology>>>,
    /// A node said, or its silence says, that something has changed.
    is_stale: AtomicBool,
}

struct Topology {
    masters: Vec<ConnectionInfo>,
    /// The number of its master for each slot.
    slots: Box<[u16]>,
}

/// One batch on its way.
struct Journey {
    /// The masters, and the nodes that redirections name.
    servers: Vec<ConnectionInfo>,
    tally: Tally,
    /// Until when nodes may answer, from the first commands on.
    deadline: Option<Instant>,
}

/// Rows that another node is to be asked about.
struct Redirected {
    row: u32,
    server: usize,
    asking: bool,
}

impl Cluster {
    /// Asks the nodes that are known and those of the DSN, one soon after the other, until one tells: within the
    /// connect timeout, however many of them are silent.
    ///
    /// # Errors
    /// None of them does; the error is one of theirs.
    async fn topology(&self, lease: &mut Lease) -> Result<Arc<Topology>, SinkError> {
        let known = self.known();
        if let Some(topology) = known.as_ref().filter(|_| !self.is_stale.load(Ordering::Acquire)) {
            return Ok(Arc::clone(topology));
        }
        let (pool, patience) = (Arc::clone(&lease.pool), lease.pool.options().connect_timeout);
        let mut servers = known.map_or_else(Vec::new, |topology| topology.masters.clone());
        for seed in &pool.options().seeds {
            if servers.iter().all(|server| server.addr() != seed.addr()) {
                servers.push(seed.clone());
            }
        }
        let tasks = servers.iter().enumerate().map(|(turn, server)| -> Task<'_, _> {
            let pool = &pool;
            Box::pin(async move {
                tokio::time::sleep(head_start(turn, patience)).await;
                look(pool, server).await.map(|(topology, link)| (topology, server.addr().to_string(), link))
            })
        });
        let (topology, place, link) = match timeout(patience, first_ok(tasks.collect())).await {
            Ok(found) => found.map_err(|mut errors| errors.pop().expect("a dsn names a host"))?,
            Err(_) => {
                let text = format!("no node of the cluster tells its slots within {patience:?}");
                return Err(SinkError::new(ErrorClass::Transient, text));
            }
        };
        lease.keep(place, link);
        let topology = Arc::new(topology);
        self.is_stale.store(false, Ordering::Release);
        *self.topology.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&topology));
        let places: Vec<String> = topology.masters.iter().map(|node| node.addr().to_string()).collect();
        pool.forget_all_but(|place| places.iter().any(|known| known == place));
        Ok(topology)
    }

    fn known(&self) -> Option<Arc<Topology>> {
        self.topology.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many nodes take writes, as far as is known.
    pub(crate) fn masters(&self) -> usize {
        self.known().map_or(0, |topology| topology.masters.len())
    }

    /// Finds out whether there is a cluster.
    ///
    /// # Errors
    /// No node can be reached, or what answers is no cluster.
    pub(crate) async fn check(&self, lease: &mut Lease) -> Result<(), SinkError> {
        self.topology(lease).await.map(drop)
    }

    /// Writes a batch, to all nodes that it concerns at once.
    ///
    /// # Errors
    /// As `write_to_server`; a node that cannot be reached concerns only its rows.
    ///
    /// # Cancel safety
    /// What was sent may be executed; the links are of no more use, and know it.
    pub(crate) async fn write(
        &self,
        lease: &mut Lease,
        plan: &RedisPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        attempt.defer();
        let topology = self.topology(lease).await?;
        let mut journey = Journey { servers: topology.masters.clone(), tally: Tally::default(), deadline: None };
        let mut encoder = Encoder::new(plan, rows);
        let mut shipments = Shipments::default();
        for row in 0..rows.len() {
            match encoder.row(row).and_then(|encoded| Ok((topology.master_of(&encoded, plan)?, encoded))) {
                Ok((master, encoded)) => shipments.of(master).add(number(row), encoded, false),
                Err(error) => {
                    self.mark_stale_if_passing(&error);
                    journey.tally.failed.push((number(row), error));
                }
            }
        }
        for _ in 0..=MOST_HOPS {
            let redirected = self.ship(lease, plan, shipments, &mut journey, attempt).await?;
            shipments = Shipments::default();
            let going: Vec<u32> = redirected.iter().map(|redirected| redirected.row).collect();
            let undone = match going.is_empty() {
                true => HashSet::new(),
                false => journey.tally.undone(&going, plan, number(rows.len()), |row| encoder.place(row as usize)),
            };
            for Redirected { row, server, asking } in redirected {
                // A later row with its key was written meanwhile.
                if undone.contains(&row) {
                    journey.tally.failed.push((row, on_the_move()));
                    continue;
                }
                match encoder.row(row as usize) {
                    // ASKING holds for one command, and MULTI would use it up.
                    Ok(Encoded { second: Some(_), .. }) if asking => journey.tally.failed.push((row, on_the_move())),
                    Ok(encoded) => shipments.of(server).add(row, encoded, asking),
                    Err(error) => journey.tally.failed.push((row, error)),
                }
            }
            if shipments.0.is_empty() {
                break;
            }
        }
        journey.tally.failed.extend(shipments.0.values().flat_map(Shipment::rows).map(|row| (row, on_the_move())));
        settle(journey.tally, plan, rows)
    }

    /// Sends each server its commands and enters the replies; returns the rows that were redirected, in order.
    async fn ship(
        &self,
        lease: &mut Lease,
        plan: &RedisPlan,
        shipments: Shipments,
        Journey { servers, tally, deadline }: &mut Journey,
        attempt: &Attempt,
    ) -> Result<Vec<Redirected>, SinkError> {
        let ways: Vec<_> = shipments.0.keys().map(|server| (*server, &servers[*server])).collect();
        let mut problems = lease.open_all(&ways).await;
        let mut by_place: HashMap<String, Shipment> = HashMap::with_capacity(ways.len());
        for (server, shipment) in shipments.0 {
            match problems.remove(&server) {
                None => drop(by_place.insert(servers[server].addr().to_string(), shipment)),
                Some(error) => {
                    self.is_stale.store(true, Ordering::Release);
                    tally.failed.extend(shipment.rows().map(|row| (row, error.clone())));
                }
            }
        }
        let now = Instant::now();
        let deadline = *deadline.get_or_insert(now + lease.pool.options().node_timeout);
        if now >= deadline {
            // Nothing of these was sent, and there is no time left for the answer.
            tally.failed.extend(by_place.values().flat_map(Shipment::rows).map(|row| (row, on_the_move())));
            by_place.clear();
        }
        // It has been sent to some nodes when this is not the first time, and then it goes on.
        if !attempt.begin() {
            return Err(given_up());
        }
        let mut sendings: Vec<Task<'_, _>> = Vec::with_capacity(by_place.len());
        for (place, link) in lease.links() {
            if let Some(shipment) = by_place.remove(place) {
                sendings.push(Box::pin(async move {
                    let sent = timeout_at(deadline, shipment.send(link)).await;
                    (place, sent, shipment)
                }));
            }
        }
        let mut redirected = Vec::new();
        for (place, sent, shipment) in join_all(sendings).await {
            let replies = match sent {
                Ok(Ok(replies)) => replies,
                broken => {
                    self.is_stale.store(true, Ordering::Release);
                    let error = if broken.is_err() { late(place) } else { lost(place) };
                    tally.failed.extend(shipment.rows().map(|row| (row, error.clone())));
                    continue;
                }
            };
            for (row, replies) in shipment.sort(&replies) {
                let Some(error) = tally.enter(plan, row, replies) else { continue };
                let asking = error.code() == "ASK";
                if !asking {
                    self.is_stale.store(true, Ordering::Release);
                }
                match target(error, place, servers) {
                    Some(server) => redirected.push(Redirected { row, server, asking }),
                    None => tally.failed.push((row, on_the_move())),
                }
            }
        }
        // Every place has its connection; if one had not, its rows would not vanish.
        tally.failed.extend(by_place.values().flat_map(Shipment::rows).map(|row| (row, on_the_move())));
        tally.failed.iter().for_each(|(_, error)| self.mark_stale_if_passing(error));
        redirected.sort_unstable_by_key(|redirected| redirected.row);
        Ok(redirected)
    }

    /// A node that is down, loading or read-only may have been replaced.
    fn mark_stale_if_passing(&self, error: &SinkError) {
        if error.is_retryable() && error.code() != Some("OOM") {
            self.is_stale.store(true, Ordering::Release);
        }
    }
}

impl Topology {
    fn master_of(&self, encoded: &Encoded, plan: &RedisPlan) -> Result<usize, SinkError> {
        let master = match plan.key_argument {
            // Of a command without a key any node says what is missing.
            Some(argument) => {
                self.slots[encoded.command.args_iter().nth(argument).map_or(0, |key| slot(bytes_of(&key)))]
            }
            None if self.masters.is_empty() => NOBODY,
            None => 0,
        };
        match master {
            NOBODY => Err(SinkError::with_code(
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
struct Shipments(BTreeMap<usize, Shipment>);

impl Shipments {
    fn of(&mut self, server: usize) -> &mut Shipment {
        self.0.entry(server).or_insert_with(|| Shipment::with_capacity(64))
    }
}

/// The number of the server that a redirection names, which is new to the list perhaps.
fn target(error: &ServerError, place: &str, servers: &mut Vec<ConnectionInfo>) -> Option<usize> {
    let (host, port) = error.details()?.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    let from = servers.iter().find(|server| server.addr().to_string() == place)?;
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

fn on_the_move() -> SinkError {
    let text = "the slot of the key is being moved from node to node";
    SinkError::with_code(ErrorClass::Transient, "TRYAGAIN", text)
}

/// Asks one node for the slots.
async fn look(pool: &Pool, server: &ConnectionInfo) -> Result<(Topology, Link), SinkError> {
    let place = server.addr().to_string();
    let mut link = pool.open(server).await?;
    let reply = link.ask(redis::cmd("CLUSTER").arg("SLOTS")).await.map_err(|error| {
        if error.code() == Some("ERR") {
            let text = format!("redis at {place} is not part of a cluster; remove cluster=true from the dsn");
            return SinkError::with_code(ErrorClass::Schema, "ERR", text);
        }
        connect_error(&error, &place)
    })?;
    let mut topology = Topology { masters: Vec::new(), slots: vec![NOBODY; SLOTS].into() };
    let Value::Array(ranges) = reply else { return Ok((topology, link)) };
    for range in ranges {
        let Value::Array(range) = range else { continue };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &*range else { continue };
        let [host, Value::Int(port), ..] = &**master else { continue };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() => String::from_utf8_lossy(host).into_owned(),
            // A node that does not know its own address is where it was asked.
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
