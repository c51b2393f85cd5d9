//! Owns what a worker is told. A file of JSON.
//! Must not know who reads it.

use std::path::PathBuf;
use std::time::Duration;

use batchsql_nats::{StreamOptions, WorkerOptions};
use serde::{Deserialize, Serialize};

use crate::chaos::job::Names;
use crate::database::DatabaseName;

/// How long a worker that was killed keeps its partitions.
pub(super) const PIN: Duration = Duration::from_secs(5);
/// How long its statements may take: less than its leases last, less a renewal.
pub(super) const STATEMENT: Duration = Duration::from_secs(3);

/// A stream of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stream {
    /// Its name, and the prefix of its subjects.
    pub(super) name: String,
    pub(super) partitions: u32,
}

impl Stream {
    pub(super) fn options(&self) -> StreamOptions {
        StreamOptions::new(&*self.name).prefix(&*self.name).partitions(self.partitions)
    }
}

/// The job of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) database: DatabaseName,
    pub(super) dsn: String,
    /// The address of the NATS server.
    pub(super) nats: String,
    pub(super) stream: Stream,
    pub(super) tables: Names,
    /// Its name, which no other process has.
    pub(super) owner: String,
    /// Its dead letters.
    pub(super) letters: PathBuf,
    /// A defect on purpose.
    pub(super) sabotage: Option<Sabotage>,
}

/// A defect on purpose, which the checker must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// A worker writes rows of a partition that another worker has claimed: the epoch is not tested.
    Unfenced,
}

impl Job {
    /// Whether rows are written exactly once.
    pub(super) fn exactly_once(&self) -> bool {
        exactly_once(self.database)
    }

    pub(super) fn options(&self) -> WorkerOptions {
        let options = WorkerOptions::new(self.stream.options(), &self.letters).owner(&*self.owner);
        match self.exactly_once() {
            true => options.exactly_once().lease(PIN),
            false => options.ack_wait(PIN),
        }
    }
}

/// Whether a database keeps the position of a partition in the transaction of its rows.
pub(super) fn exactly_once(database: DatabaseName) -> bool {
    database != DatabaseName::Redis
}
