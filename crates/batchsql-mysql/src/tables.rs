//! Owns the cache of table definitions, shared by the schemas of a table: rows that omit different columns have
//! different schemas, and the catalog of a server is slow.
//! Must not know what the definitions are used for.
//!
//! Example: 1,000 schemas of one table read its definition once. A schema asks a second time only if something was
//! rejected or has changed: the table is then read again, and the new definition applies to the other schemas too.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use batchsql_core::{Schema, SchemaId, TableName};

use crate::catalog::{Session, Table};
use crate::in_use::State;

/// Maximum number of cached tables; beyond it, all are read again.
const MAX_TABLES: usize = 1_024;

/// The definitions of tables, and the session in which they were read.
#[derive(Default)]
pub(crate) struct Tables(Mutex<HashMap<TableName, Known>>);

/// A definition, and the session that read it.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) session: Arc<Session>,
    pub(crate) table: Arc<Table>,
    read_at: Instant,
    /// The schemas that have used it.
    used_by: HashSet<SchemaId>,
}

impl Tables {
    /// The cached definition, for a schema that asks for the first time, if it is younger than `max_age` and was read by a session
    /// of this state.
    pub(crate) fn first_time(
        &self,
        schema: &Schema,
        max_age: Duration,
        state: &Option<State>,
    ) -> Option<(Arc<Session>, Arc<Table>)> {
        let mut tables = self.lock();
        let known = tables.get_mut(schema.table()).filter(|known| known.read_at.elapsed() < max_age)?;
        if known.session.state != *state {
            return None;
        }
        known.used_by.insert(schema.id()).then(|| (Arc::clone(&known.session), Arc::clone(&known.table)))
    }

    /// The definition, if it was read within the last `max_age`.
    pub(crate) fn read_lately(&self, table: &TableName, max_age: Duration) -> Option<Arc<Table>> {
        let tables = self.lock();
        let known = tables.get(table).filter(|known| known.read_at.elapsed() < max_age)?;
        Some(Arc::clone(&known.table))
    }

    /// Stores the definition that was read for a schema.
    pub(crate) fn keep(&self, schema: &Schema, session: &Arc<Session>, table: &Arc<Table>) {
        let mut tables = self.lock();
        if tables.len() >= MAX_TABLES {
            tables.clear();
        }
        let (session, table) = (Arc::clone(session), Arc::clone(table));
        let used_by = HashSet::from([schema.id()]);
        tables.insert(schema.table().clone(), Known { session, table, read_at: Instant::now(), used_by });
    }

    /// Records that a table was read again. If it has changed, every schema reads it again.
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
