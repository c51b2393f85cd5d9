//! Owns what is known of the database and its tables at one moment: for readiness probes and operators.
//! Must not know how it is found out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::error::SinkError;

/// Whether the database can be reached, as of the last request for a connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DatabaseState {
    /// No connection was requested yet.
    NotTried,
    /// The last request got a connection.
    Reachable,
    /// No connection can be established.
    Unreachable {
        /// Since the first error.
        since: SystemTime,
        /// The last error.
        error: SinkError,
    },
}

/// A table that cannot be written for now; its rows wait.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ParkedTable {
    /// `namespace.table`.
    pub table: String,
    /// Since when. If rows that carry different columns are parked separately, the earliest time.
    pub since: SystemTime,
    /// Why, as of the last attempt.
    pub error: SinkError,
}

/// What a pipeline knows of its database: [`BatchSql::health`](crate::BatchSql::health).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Health {
    /// Whether it can be reached.
    pub database: DatabaseState,
    /// The tables that cannot be written for now, by name.
    pub parked: Vec<ParkedTable>,
}

impl Health {
    /// False only if the database was found to be unreachable. True also before the first attempt to connect has ended,
    /// which can take the driver's `connect_timeout` after a lazy start.
    pub fn is_reachable(&self) -> bool {
        !matches!(self.database, DatabaseState::Unreachable { .. })
    }

    /// Whether rows can be written, as far as is known: the last request for a connection succeeded, and no table is
    /// parked.
    pub fn is_ready(&self) -> bool {
        matches!(self.database, DatabaseState::Reachable) && self.parked.is_empty()
    }
}

/// What one pipeline knows.
#[derive(Debug)]
pub(crate) struct HealthState(Mutex<Known>);

#[derive(Debug)]
struct Known {
    health: Health,
    /// When the last connection was established.
    connected_at: Option<Instant>,
}

impl Default for HealthState {
    fn default() -> Self {
        let health = Health { database: DatabaseState::NotTried, parked: Vec::new() };
        Self(Mutex::new(Known { health, connected_at: None }))
    }
}

impl HealthState {
    /// A connection was established.
    pub(crate) fn connected(&self) {
        let mut known = self.lock();
        known.health.database = DatabaseState::Reachable;
        known.connected_at = Some(Instant::now());
    }

    /// A request for a connection that started at `begin` failed. A success since then takes precedence.
    pub(crate) fn not_connected(&self, error: &SinkError, begin: Instant) {
        let mut known = self.lock();
        if known.connected_at.is_some_and(|at| at > begin) {
            return;
        }
        let health = &mut known.health;
        let since = match &health.database {
            DatabaseState::Unreachable { since, .. } => *since,
            DatabaseState::NotTried | DatabaseState::Reachable => SystemTime::now(),
        };
        health.database = DatabaseState::Unreachable { since, error: error.clone() };
    }

    /// These tables are parked, and no others. A table may be named several times.
    pub(crate) fn set_parked<'a>(&self, tables: impl Iterator<Item = (&'a str, SystemTime, &'a SinkError)>) {
        let mut parked: BTreeMap<&str, (SystemTime, &SinkError)> = BTreeMap::new();
        for (table, since, error) in tables {
            let entry = parked.entry(table).or_insert((since, error));
            if since < entry.0 {
                *entry = (since, error);
            }
        }
        let parked = parked.into_iter();
        self.lock().health.parked = parked
            .map(|(table, (since, error))| ParkedTable { table: table.to_owned(), since, error: error.clone() })
            .collect();
    }

    pub(crate) fn get(&self) -> Health {
        self.lock().health.clone()
    }

    /// `None` while it is not known.
    pub(crate) fn is_reachable(&self) -> Option<bool> {
        match self.lock().health.database {
            DatabaseState::NotTried => None,
            DatabaseState::Reachable => Some(true),
            DatabaseState::Unreachable { .. } => Some(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
