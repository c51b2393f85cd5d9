//! Owns what an administrator of a database does for a run.
//! Must not know any database.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use crate::chaos::check::Found;
use crate::chaos::fault::Fault;
use crate::chaos::job::Names;

/// How long an administrator tries to reach a server.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long one connection or statement may take, unless it waits for a lock.
pub(super) const CALL: Duration = Duration::from_secs(30);
/// How long a statement of an administrator waits for a lock. Whoever holds it may release it only when another fault ends, which
/// waits for this one.
pub(super) const LOCK: Duration = Duration::from_secs(1);
/// Pause between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// What stays open while a fault lasts, for example a connection with a lock.
pub(in crate::chaos) type Held = Option<Box<dyn Any + Send>>;

/// A lock was not given in time: the same call can be made again, and goes on where this one has stopped.
#[derive(Debug)]
pub(in crate::chaos) struct NotLocked;

impl fmt::Display for NotLocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a lock was not given within {} s", LOCK.as_secs())
    }
}

/// The tables of a run.
#[derive(Debug, Clone)]
pub(in crate::chaos) struct Scene {
    pub(in crate::chaos) names: Names,
    /// How often they were taken away.
    pub(in crate::chaos) gone: u32,
    /// How many statements of a change are done that is under way.
    pub(super) done: usize,
}

impl Scene {
    pub(in crate::chaos) fn new(names: Names) -> Self {
        Self { names, gone: 0, done: 0 }
    }

    /// The name of a table in one of its incarnations; the last one is the table that is written.
    pub(super) fn incarnation(&self, name: &str, number: u32) -> String {
        if number == self.gone { name.to_owned() } else { format!("{name}_gone{number}") }
    }

    /// The names of a table in all of its incarnations, the oldest first.
    pub(super) fn incarnations(&self, name: &str) -> Vec<String> {
        (0..=self.gone).map(|number| self.incarnation(name, number)).collect()
    }
}

/// Creates and reads the tables of a run, and causes faults inside of the database.
#[async_trait]
pub(in crate::chaos) trait Admin: Send + Sync {
    /// `host:port` of the server; `None` if there is none.
    fn server(&self) -> Option<String>;

    /// The DSN for a writer, which connects to this address.
    fn writer_dsn(&self, address: Option<SocketAddr>) -> Result<String>;

    /// Creates the tables, and the user of the writer if it is missing.
    async fn create(&self, scene: &Scene) -> Result<()>;

    /// Causes a fault of the layer `Database`. [`NotLocked`] is no failure.
    async fn begin(&self, fault: Fault, scene: &mut Scene) -> Result<Held>;

    /// Ends it. [`NotLocked`] is no failure; then nothing is held any more.
    async fn end(&self, fault: Fault, scene: &mut Scene, held: Held) -> Result<()>;

    /// Reads everything.
    async fn read(&self, scene: &Scene) -> Result<Found>;

    /// Whether the tables refuse rows that break their constraints.
    fn refuses_bad_rows(&self) -> bool;
}
