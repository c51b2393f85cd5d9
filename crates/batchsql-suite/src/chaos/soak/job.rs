//! Owns what the writer of a soak receives, and what it reports at its end. Files of JSON.
//! Must not know who reads them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::table::Table;
use crate::chaos::job::{Names, Pool};
use crate::database::DatabaseName;

/// How rows are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    /// In memory.
    Memory,
    /// By the durable intake; rows may be written again.
    Durable,
    /// By the durable intake, with positions in the database.
    ExactlyOnce,
}

impl Mode {
    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "in memory",
            Self::Durable => "durable",
            Self::ExactlyOnce => "exactly once",
        }
    }
}

/// The job of a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) database: DatabaseName,
    /// Its address, through the proxy where it has a server.
    pub(super) dsn: String,
    /// The tables that chaos has too.
    pub(super) tables: Names,
    /// The table of counters.
    pub(super) counter: String,
    pub(super) pool: Pool,
    pub(super) mode: Mode,
    /// Tasks that submit rows.
    pub(super) producers: u32,
    /// Rows per second of all of them.
    pub(super) rows_per_second: u32,
    /// Where it keeps its files: the durable intake, the readings and the totals.
    pub(super) folder: PathBuf,
    /// Bytes of each row that are never freed: a defect on purpose.
    pub(super) leak: usize,
}

impl Job {
    /// The folder of the durable intake.
    pub(super) fn intake(&self) -> PathBuf {
        self.folder.join("intake")
    }

    /// The file of the readings, a line for each.
    pub(super) fn readings(&self) -> PathBuf {
        self.folder.join("readings.ndjson")
    }

    /// The file of the totals.
    pub(super) fn totals(&self) -> PathBuf {
        self.folder.join("totals.json")
    }
}

/// What a writer knows of a table at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Total {
    /// Rows that were accepted and that the database does not refuse.
    pub(super) accepted: u64,
    /// Rows of which the disk of the log has not said whether it has them.
    pub(super) undetermined: u64,
    /// Outcomes by name, from the metrics. With the durable intake, a row that is written again counts again.
    pub(super) outcomes: BTreeMap<String, u64>,
}

/// What a writer knows at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    /// By [`Table::name`].
    pub(super) tables: BTreeMap<String, Total>,
    /// Rows of the last balance: accepted, and the sum of all outcomes.
    pub(super) balance: (u64, u64),
    /// Rows that are left in the log.
    pub(super) left: u64,
}

impl Totals {
    /// The total of a table.
    pub(super) fn of(&self, table: Table) -> Total {
        self.tables.get(table.name()).cloned().unwrap_or_default()
    }
}
