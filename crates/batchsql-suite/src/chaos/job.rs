//! Owns the job of a writer: where it writes, what, how fast, and where its ledger is. A file of JSON.
//! Must not know who reads it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::database::DatabaseName;

/// Tasks of a writer that submit rows.
pub(super) const PRODUCERS: u32 = 6;

/// Whose connections a writer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The pool that the sink makes from its options.
    Own,
    /// A pool that the program made, with the settings of its client.
    User,
}

/// How a writer accepts rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// In memory; a receipt for each row.
    Receipts,
    /// With the durable intake in this folder.
    Durable(PathBuf),
}

/// A defect on purpose, which the checker must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// Rows without a key are written again after a lost reply, and this is not reported.
    Repeat,
    /// A durable row is acknowledged before the log has it.
    AcknowledgeEarly,
    /// A durable row leaves the log before it has its outcome.
    SettleEarly,
    /// A position moves in a transaction of its own, before that of its rows.
    PositionAlone,
}

/// The names of the tables of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Names {
    /// Without a key.
    pub(super) plain: String,
    /// With a key that is updated.
    pub(super) keyed: String,
    /// With a key whose first row stays.
    pub(super) once: String,
    /// Each version of the keyed table, in the order in which they were written.
    pub(super) history: String,
}

impl Names {
    /// The names with a prefix that other runs do not have.
    pub(super) fn new(prefix: &str) -> Self {
        let name = |table: &str| format!("{prefix}_{table}");
        Self { plain: name("plain"), keyed: name("keyed"), once: name("once"), history: name("history") }
    }

    /// The tables that the writer writes to.
    pub(super) fn written(&self) -> [&str; 3] {
        [&self.plain, &self.keyed, &self.once]
    }
}

/// The job of a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// The database.
    pub(super) database: DatabaseName,
    /// Its address, through the proxy where it has a server.
    pub(super) dsn: String,
    /// The tables.
    pub(super) tables: Names,
    /// Whose connections.
    pub(super) pool: Pool,
    /// How rows are accepted.
    pub(super) mode: Mode,
    /// What is done to a row without a key after a lost reply: it may be written again, and be there twice.
    pub(super) at_least_once: bool,
    /// Whether the durable intake writes exactly once.
    pub(super) exactly_once: bool,
    /// A defect on purpose.
    pub(super) sabotage: Option<Sabotage>,
    /// The number of the writer in its run, from 0: after a kill there is another one.
    pub(super) generation: u32,
    /// Tasks that submit rows.
    pub(super) producers: u32,
    /// Rows per second of all of them; 0 submits none, and only writes what a durable intake has.
    pub(super) rows_per_second: u32,
    /// The ledger that it writes.
    pub(super) ledger: PathBuf,
    /// Its dead letters. A durable intake has them in its folder, over all writers.
    pub(super) letters: PathBuf,
}
