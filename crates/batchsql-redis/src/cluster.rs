//! Owns the cluster: which node serves which slot, and the way of one batch to several nodes and back.
//! Must not know how commands are made or what their replies mean.
//!
//! Why not the cluster client of `redis`: it sends a pipeline to one node, and when one command of it is refused
//! with `MOVED`, `ASK`, `TRYAGAIN`, `LOADING` or `READONLY` it sends all of them again, also those that were executed
//! (`choose_response` in its `cluster_handling/async_connection/request.rs`). Here only what was refused is sent
//! again, so that outcomes stay exact.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use batchsql_core::{Attempt, ErrorClass, Rows, SinkError, Written};
use redis::{ConnectionAddr, ConnectionInfo, RedisResult, ServerError, Value};

use crate::classify::{connect_error, lost};
use crate::encode::{Encoded, Encoder, bytes_of};
use crate::link::{Lease, with_host};
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

/// Rows that another node is to be asked about.
struct Redirected {
    row: u32,
    server: usize,
    asking: bool,
}

impl Cluster {
    /// Asks the nodes that are known, then those of the DSN, until one tells.
    ///
    /// # Errors
    /// None of them does; the error is that of the last one.
    async fn topology(&self, lease: &mut Lease) -> Result<Arc<Topology>, SinkError> {
        let known = self.topology.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(topology) = known.as_ref().filter(|_| !self.is_stale.load(Ordering::Acquire)) {
            return Ok(Arc::clone(topology));
        }
        let mut servers = known.map_or_else(Vec::new, |topology| topology.masters.clone());
        servers.extend(lease.pool.options().seeds.clone());
        let mut problem = SinkError::new(ErrorClass::Transient, "no node of the cluster is known");
        for server in servers {
            match look(lease, &server).await {
                Ok(topology) => {
                    let topology = Arc::new(topology);
                    self.is_stale.store(false, Ordering::Release);
                    *self.topology.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&topology));
                    let places: Vec<String> = topology.masters.iter().map(|node| node.addr().to_string()).collect();
                    lease.pool.forget_all_but(|place| places.iter().any(|known| known == place));
                    return Ok(topology);
                }
                Err(error) => problem = error,
            }
        }
        Err(problem)
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
        let mut servers = topology.masters.clone();
        let mut tally = Tally::default();
        let mut encoder = Encoder::new(plan, rows);
        let mut shipments = Shipments::default();
        for row in 0..rows.len() {
            match encoder.row(row).and_then(|encoded| Ok((topology.master_of(&encoded, plan)?, encoded))) {
                Ok((master, encoded)) => shipments.of(master).add(number(row), encoded, false),
                Err(error) => {
                    self.mark_stale_if_passing(&error);
                    tally.failed.push((number(row), error));
                }
            }
        }
        for _ in 0..=MOST_HOPS {
            let redirected = self.ship(lease, plan, shipments, &mut servers, &mut tally, attempt).await?;
            shipments = Shipments::default();
            for Redirected { row, server, asking } in redirected {
                match encoder.row(row as usize) {
                    // ASKING holds for one command, and MULTI would use it up.
                    Ok(Encoded { second: Some(_), .. }) if asking => tally.failed.push((row, on_the_move())),
                    Ok(encoded) => shipments.of(server).add(row, encoded, asking),
                    Err(error) => tally.failed.push((row, error)),
                }
            }
            if shipments.0.is_empty() {
                break;
            }
        }
        tally.failed.extend(shipments.0.values().flat_map(Shipment::rows).map(|row| (row, on_the_move())));
        settle(tally, plan, rows)
    }

    /// Sends each server its commands and enters the replies; returns the rows that were redirected, in order.
    async fn ship(
        &self,
        lease: &mut Lease,
        plan: &RedisPlan,
        mut shipments: Shipments,
        servers: &mut Vec<ConnectionInfo>,
        tally: &mut Tally,
        attempt: &Attempt,
    ) -> Result<Vec<Redirected>, SinkError> {
        let mut by_place: BTreeMap<String, Shipment> = BTreeMap::new();
        for (server, info) in servers.iter().enumerate() {
            let Some(shipment) = shipments.0.remove(&server) else { continue };
            match lease.link(info).await {
                Ok(_) => drop(by_place.insert(info.addr().to_string(), shipment)),
                Err(error) => {
                    self.is_stale.store(true, Ordering::Release);
                    tally.failed.extend(shipment.rows().map(|row| (row, error.clone())));
                }
            }
        }
        // It has been sent to some nodes when this is not the first time, and then it goes on.
        if !attempt.begin() {
            return Err(given_up());
        }
        let mut sendings: Vec<Sending<'_>> = Vec::with_capacity(by_place.len());
        for (place, link) in lease.links() {
            if let Some((place, shipment)) = by_place.get_key_value(place) {
                sendings.push(Box::pin(async move { (place.as_str(), shipment, shipment.send(link).await) }));
            }
        }
        let mut redirected = Vec::new();
        for (place, shipment, result) in join_all(sendings).await {
            let Ok(replies) = result else {
                self.is_stale.store(true, Ordering::Release);
                tally.failed.extend(shipment.rows().map(|row| (row, lost(place))));
                continue;
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
        let Some(argument) = plan.key_argument else { return Ok(0) };
        // Of a command without a key any node says what is missing.
        let slot = encoded.command.args_iter().nth(argument).map_or(0, |key| slot(bytes_of(&key)));
        match self.slots[slot] {
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

type Sent<'a> = (&'a str, &'a Shipment, RedisResult<Vec<Value>>);
type Sending<'a> = Pin<Box<dyn Future<Output = Sent<'a>> + Send + 'a>>;

/// Runs the few sendings of one batch at the same time.
async fn join_all(mut sendings: Vec<Sending<'_>>) -> Vec<Sent<'_>> {
    let mut sent = Vec::with_capacity(sendings.len());
    poll_fn(|context| {
        sendings.retain_mut(|sending| match sending.as_mut().poll(context) {
            Poll::Ready(result) => {
                sent.push(result);
                false
            }
            Poll::Pending => true,
        });
        if sendings.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    sent
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
async fn look(lease: &mut Lease, server: &ConnectionInfo) -> Result<Topology, SinkError> {
    let place = server.addr().to_string();
    let link = lease.link(server).await?;
    let reply = link.ask(redis::cmd("CLUSTER").arg("SLOTS")).await.map_err(|error| {
        if error.code() == Some("ERR") {
            let text = format!("redis at {place} is not part of a cluster; remove cluster=true from the dsn");
            return SinkError::with_code(ErrorClass::Schema, "ERR", text);
        }
        connect_error(&error, &place)
    })?;
    let mut topology = Topology { masters: Vec::new(), slots: vec![NOBODY; SLOTS].into() };
    let Value::Array(ranges) = reply else { return Ok(topology) };
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
    Ok(topology)
}
