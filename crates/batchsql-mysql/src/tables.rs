//! Owns what was read of tables lately, shared by the schemas of a table: rows that leave out different columns have a
//! schema each, and the catalog of a server is slow.
//! Must not know what is made of it.
//!
//! Example: 1,000 schemas of one table read its definition once. A schema that asks a second time does so because something
//! was refused, or has changed: the table is read again for it, and counts for the others from then on.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use batchsql_core::{Schema, SchemaId, TableName};

use crate::catalog::{Session, Table};

/// Tables that are remembered; beyond these, all are read again.
const MAX_TABLES: usize = 1_024;

/// The definitions of tables, and the session in which they were read.
#[derive(Default)]
pub(crate) struct Tables(Mutex<HashMap<TableName, Known>>);

/// A definition, and where it was read.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) session: Arc<Session>,
    pub(crate) table: Arc<Table>,
    read_at: Instant,
    /// The schemas that had it.
    used_by: HashSet<SchemaId>,
}

impl Tables {
    /// What is known of the table, for a schema that asks for the first time, when it is younger than `max_age`.
    pub(crate) fn first_time(&self, schema: &Schema, max_age: Duration) -> Option<(Arc<Session>, Arc<Table>)> {
        let mut tables = self.lock();
        let known = tables.get_mut(schema.table()).filter(|known| known.read_at.elapsed() < max_age)?;
        known.used_by.insert(schema.id()).then(|| (Arc::clone(&known.session), Arc::clone(&known.table)))
    }

    /// The definition, when it was read in the last `max_age`.
    pub(crate) fn read_lately(&self, table: &TableName, max_age: Duration) -> Option<Arc<Table>> {
        let tables = self.lock();
        let known = tables.get(table).filter(|known| known.read_at.elapsed() < max_age)?;
        Some(Arc::clone(&known.table))
    }

    /// Keeps what was read for a schema.
    pub(crate) fn keep(&self, schema: &Schema, session: &Arc<Session>, table: &Arc<Table>) {
        let mut tables = self.lock();
        if tables.len() >= MAX_TABLES {
            tables.clear();
        }
        let (session, table) = (Arc::clone(session), Arc::clone(table));
        let used_by = HashSet::from([schema.id()]);
        tables.insert(schema.table().clone(), Known { session, table, read_at: Instant::now(), used_by });
    }

    /// Notes that a table was read again: as it was, or otherwise, so that every schema reads it again.
    pub(crate) fn read_again(&self, name: &TableName, is_the_same: bool) {
        let mut tables = self.lock();
        if !is_the_same {
            tables.remove(name);
        } else if let Some(known) = tables.get_mut(name) {
            known.read_at = Instant::now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TableName, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
