//! Owns the cache of recently read tables, so that the many schemas of one table read it once.
//! Must not know how a table is read, or what a schema needs from it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchsql_core::{SchemaId, TableName};
use tokio::time::Instant;

use crate::catalog::Table;

/// How long a reading may be reused for other schemas.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// A table, and when it was read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) table: Arc<Table>,
    pub(crate) read: Instant,
}

/// The readings of a sink.
///
/// Example: rows that omit different columns have 1,024 schemas. The first one reads the table, and the others get
/// the same reading within the next second. If one of them asks a second time, its rows were rejected, so the table
/// is read again.
#[derive(Debug, Default)]
pub(crate) struct Tables(Mutex<HashMap<TableName, Known>>);

#[derive(Debug)]
struct Known {
    reading: Reading,
    given: HashSet<SchemaId>,
    reason: Reason,
}

/// Why a table was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// For a plan, or after an error.
    Plan,
    /// Values did not fit, and a column may have become wider.
    Values,
}

impl Tables {
    /// The reading for a schema; each schema gets a reading once.
    pub(crate) fn get(&self, name: &TableName, schema: SchemaId) -> Option<Reading> {
        let mut tables = self.lock();
        let known = tables.get_mut(name).filter(|known| known.reading.read.elapsed() < GOOD_FOR)?;
        known.given.insert(schema).then(|| known.reading.clone())
    }

    /// The reading of the last second that was made because values did not fit, even if it was returned before: such
    /// values may come with every batch.
    pub(crate) fn for_values(&self, name: &TableName) -> Option<Reading> {
        let tables = self.lock();
        let known = tables.get(name).filter(|known| known.reading.read.elapsed() < GOOD_FOR)?;
        (known.reason == Reason::Values).then(|| known.reading.clone())
    }

    /// Stores a reading that was made for a schema.
    pub(crate) fn put(&self, name: &TableName, schema: SchemaId, table: Table, reason: Reason) -> Reading {
        let reading = Reading { table: Arc::new(table), read: Instant::now() };
        let mut tables = self.lock();
        tables.retain(|_, known| known.reading.read.elapsed() < GOOD_FOR);
        let known = Known { reading: reading.clone(), given: HashSet::from([schema]), reason };
        tables.insert(name.clone(), known);
        reading
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TableName, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, Schema};

    use super::*;

    fn schema(columns: &[&str]) -> Schema {
        let builder = columns.iter().fold(Schema::builder("t"), |b, name| b.column(*name, ColumnType::I64));
        builder.build().unwrap()
    }

    fn table() -> Table {
        Table {
            namespace: "public".into(),
            kind: 'r',
            is_temporary: false,
            is_unlogged: false,
            has_foreign_part: false,
            has_children: false,
            runs_on_insert: false,
            runs_on_update: false,
            runs_on_delete: false,
            has_row_security: false,
            has_insert_triggers: false,
            has_update_triggers: false,
            has_insert_rule: false,
            has_update_rule: false,
            has_delete_rule: false,
            may_delete: true,
            may_stage: true,
            columns: Vec::new(),
            unique: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_is_good_for_a_second_and_once_for_each_schema() {
        let (tables, a, b) = (Tables::default(), schema(&["a"]), schema(&["a", "b"]));
        let name = a.table();
        assert!(tables.get(name, a.id()).is_none() && tables.for_values(name).is_none());
        tables.put(name, a.id(), table(), Reason::Plan);
        assert!(tables.get(name, a.id()).is_none(), "it was made for this one");
        assert!(tables.get(name, b.id()).is_some());
        assert!(tables.get(name, b.id()).is_none());
        assert!(tables.for_values(name).is_none(), "a column may have become wider since it was read for a plan");
        tables.put(name, a.id(), table(), Reason::Values);
        for _ in 0..2 {
            assert!(tables.for_values(name).is_some(), "for values that do not fit it is good each time");
        }
        tokio::time::advance(GOOD_FOR).await;
        assert!(tables.get(name, schema(&["c"]).id()).is_none() && tables.for_values(name).is_none());
    }
}
