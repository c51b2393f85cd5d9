//! Owns the private state of the running dispatcher.
//! Must not know what is done with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use crate::dispatch::connect_gate::ConnectGate;
use crate::dispatch::fences::Fences;
use crate::dispatch::schedule::Schedule;
use crate::error::SinkError;
use crate::write::ended::{Connection, Ended};
use crate::write::flight::Flight;
use crate::write::session::SessionEnd;

/// How a task of the dispatcher ended.
pub(crate) enum TaskEnd<C> {
    Connected(Result<Connection<C>, SinkError>),
    Written(Ended<C>),
    SessionEnded(Result<SessionEnd, SinkError>),
}

/// The private state of the dispatcher.
pub(crate) struct State<C> {
    pub(crate) schedule: Schedule,
    pub(crate) fences: Fences,
    pub(crate) tasks: JoinSet<TaskEnd<C>>,
    /// Tasks that get a connection, and since when.
    pub(crate) connecting: HashMap<Id, Instant>,
    /// The state of ordered batches that are being written, shared by the dispatcher and their tasks.
    pub(crate) flights: HashMap<Id, Arc<Flight>>,
    /// The task that ends a session.
    pub(crate) fencing: Option<Id>,
    /// Connections for batches that start now: of batches that have just ended, or just acquired. Unused ones return to
    /// the pool, which others may use too.
    pub(crate) connections: Vec<Connection<C>>,
    /// Set while no connection can be established.
    pub(crate) gate: Option<ConnectGate>,
    /// Rows of lanes that wait for a fixed time are not checked before this time.
    pub(crate) next_expiry: Option<Instant>,
    /// A permit is free, and a lane waits because its table has all the permits it may have.
    pub(crate) is_capped: bool,
    /// Since when submitters wait although no batch is in flight.
    pub(crate) waited_for_since: Option<Instant>,
    /// Flush calls that wait for all batches below a number.
    pub(crate) flushes: Vec<(u64, oneshot::Sender<()>)>,
    pub(crate) is_draining: bool,
    /// Rows were written outside of the buffer since the last report.
    pub(crate) has_stepped: bool,
}

impl<C: 'static> State<C> {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            fences: Fences::new(Instant::now()),
            tasks: JoinSet::new(),
            connecting: HashMap::new(),
            flights: HashMap::new(),
            fencing: None,
            connections: Vec::new(),
            gate: None,
            next_expiry: None,
            is_capped: false,
            waited_for_since: None,
            flushes: Vec::new(),
            is_draining: false,
            has_stepped: false,
        }
    }

    /// Whether no batch in flight will release capacity. Batches that back off or are parked release none by
    /// themselves.
    pub(crate) fn is_idle(&self) -> bool {
        self.schedule.running() == 0 && self.connecting.is_empty()
    }
}

/// Shows the submitters whether a batch is in flight, so that they know whether to ask for capacity.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    busy: AtomicBool,
}

impl Activity {
    /// Whether the end of a batch will release capacity without a request.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::SeqCst);
    }
}
