//! Owns what is known of the database and its tables at one moment: for readiness probes, and for people.
//! Must not know who finds it out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::error::SinkError;

/// Whether the database can be reached, as of the last time that a connection was asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DatabaseState {
    /// No connection was asked for yet.
    NotTried,
    /// The last connection was got.
    Reachable,
    /// No connection can be had.
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
    /// Since when. Where rows of the table that carry different columns are parked on their own, the earliest.
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
    /// Whether the database was not found to be unreachable.
    pub fn is_reachable(&self) -> bool {
        !matches!(self.database, DatabaseState::Unreachable { .. })
    }

    /// Whether rows can be written, as far as is known: the database is reachable and no table is parked.
    pub fn is_ready(&self) -> bool {
        self.is_reachable() && self.parked.is_empty()
    }
}

/// What one pipeline knows.
#[derive(Debug)]
pub(crate) struct HealthState(Mutex<Known>);

#[derive(Debug)]
struct Known {
    health: Health,
    /// When the last connection was got.
    connected_at: Option<Instant>,
}

impl Default for HealthState {
    fn default() -> Self {
        let health = Health { database: DatabaseState::NotTried, parked: Vec::new() };
        Self(Mutex::new(Known { health, connected_at: None }))
    }
}

impl HealthState {
    /// A connection was got.
    pub(crate) fn connected(&self) {
        let mut known = self.lock();
        known.health.database = DatabaseState::Reachable;
        known.connected_at = Some(Instant::now());
    }

    /// No connection was got that was asked for at `begin`. If another was got since, that says more.
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

    /// `None` while nobody knows.
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
