//! Owns what an administrator of a database does for a run.
//! Must not know any database.

use std::any::Any;
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
/// Pause between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// What stays open while a fault lasts, for example a connection with a lock.
pub(in crate::chaos) type Held = Option<Box<dyn Any + Send>>;

/// The tables of a run.
#[derive(Debug, Clone)]
pub(in crate::chaos) struct Scene {
    pub(in crate::chaos) names: Names,
    /// How often they were taken away.
    pub(in crate::chaos) gone: u32,
}

impl Scene {
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

    /// Causes a fault of the layer `Database`.
    async fn begin(&self, fault: Fault, scene: &mut Scene) -> Result<Held>;

    /// Ends it.
    async fn end(&self, fault: Fault, scene: &Scene, held: Held) -> Result<()>;

    /// Reads everything.
    async fn read(&self, scene: &Scene) -> Result<Found>;

    /// Whether the tables refuse rows that break their constraints.
    fn refuses_bad_rows(&self) -> bool;
}
