//! Owns the tables that were read lately, so that the many schemas of one table read it once.
//! Must not know how a table is read, or what a schema wants of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchsql_core::{SchemaId, TableName};
use tokio::time::Instant;

use crate::catalog::Table;

/// How long a table that was read is good for other schemas.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// A table, and when it was read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) table: Arc<Table>,
    pub(crate) read: Instant,
}

/// The readings of a sink.
///
/// Example: rows that leave out different columns come in 1,024 schemas. The first one reads the table, and the others
/// of the next second are given the same reading. When one of them asks a second time, its rows were refused, so the
/// table is read again.
#[derive(Debug, Default)]
pub(crate) struct Tables(Mutex<HashMap<TableName, Known>>);

#[derive(Debug)]
struct Known {
    reading: Reading,
    given: HashSet<SchemaId>,
}

impl Tables {
    /// The reading for a schema; once for each reading.
    pub(crate) fn get(&self, name: &TableName, schema: SchemaId) -> Option<Reading> {
        let mut tables = self.lock();
        let known = tables.get_mut(name).filter(|known| known.reading.read.elapsed() < GOOD_FOR)?;
        known.given.insert(schema).then(|| known.reading.clone())
    }

    /// Keeps a reading that was made for a schema.
    pub(crate) fn put(&self, name: &TableName, schema: SchemaId, table: Table) -> Reading {
        let reading = Reading { table: Arc::new(table), read: Instant::now() };
        let mut tables = self.lock();
        tables.retain(|_, known| known.reading.read.elapsed() < GOOD_FOR);
        tables.insert(name.clone(), Known { reading: reading.clone(), given: HashSet::from([schema]) });
        reading
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TableName, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
