//! Owns the handle that callers hold: what it shows, and its end without a close.
//! Must not know how rows are stored or written.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering as Atomic;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use batchsql_core::{BatchSql, Schema, SchemaId, TableName, WhenFull};
use batchsql_log::{Log, LogError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::block::schema_record;
use crate::builder::refuse_schema;
use crate::close;
use crate::error::DurableSubmitError;
use crate::feed::feeds::Feeds;
use crate::health::{DurableCloseReport, DurableHealth, DurableStats, Recovered};
use crate::intake::gather::{Entry, Gather};
use crate::key::KeyOrder;
use crate::schemas::Schemas;

/// A pipeline whose accepted rows survive the process: they are stored in a log on local disk, and written from there. Made
/// by [`DurableExt::durable`](crate::DurableExt::durable).
///
/// Cloning is cheap, and every clone is the same intake. When the last clone is dropped without
/// [`close`](Self::close), it is closed in the background without waiting for the database; rows that are not written stay
/// in the log.
#[derive(Clone)]
pub struct DurableBatchSql(Arc<Owner>);

/// Closes the intake with the last handle.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        // The log keeps its lock until the pipeline has ended, so that two pipelines never write the same rows.
        close::begin(&self.0, Duration::ZERO);
    }
}

pub(crate) struct Shared {
    pub(crate) pipeline: BatchSql,
    pub(crate) log: Log,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) gather: Arc<Gather>,
    /// By the id of the schema, which an entry keeps.
    pub(crate) entries: RwLock<HashMap<SchemaId, Arc<Entry>>>,
    pub(crate) recovered: Recovered,
    pub(crate) when_full: WhenFull,
    pub(crate) is_per_table: bool,
    /// For tests.
    pub(crate) acknowledges_early: bool,
    pub(crate) segment_bytes: u64,
    pub(crate) runtime: Handle,
    pub(crate) appender: Mutex<Option<JoinHandle<()>>>,
    pub(crate) closing: OnceLock<watch::Receiver<Option<DurableCloseReport>>>,
}

impl DurableBatchSql {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(Owner(Arc::new(shared))))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// The pipeline that writes the rows, for [`check_connection`](BatchSql::check_connection), `prepare` and `config`. Rows
    /// that are submitted to it are not stored.
    pub fn pipeline(&self) -> &BatchSql {
        &self.shared().pipeline
    }

    /// What the start has found in the folder.
    pub fn recovered(&self) -> &Recovered {
        &self.shared().recovered
    }

    /// What is known at this moment; it does not contact the database.
    pub fn health(&self) -> DurableHealth {
        let Shared { pipeline, log, feeds, .. } = &**self.shared();
        DurableHealth { pipeline: pipeline.health(), stopped: feeds.stopped(), log_is_full: log.stats().is_full }
    }

    /// Counts since the start, for metrics.
    pub fn stats(&self) -> DurableStats {
        let Shared { pipeline, log, feeds, .. } = &**self.shared();
        let counts = &feeds.context.counts;
        DurableStats {
            log: log.stats(),
            balance: pipeline.balance(),
            written_again: counts.written_again.load(Atomic::Relaxed),
            missing: counts.missing.load(Atomic::Relaxed),
            dead_letters: counts.dead_letters.load(Atomic::Relaxed),
        }
    }
}

impl fmt::Debug for DurableBatchSql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableBatchSql").field("log", &self.shared().log).finish_non_exhaustive()
    }
}

impl Shared {
    /// The schema of a row, as the log knows it.
    pub(crate) fn entry(&self, schema: &Schema) -> Result<Arc<Entry>, DurableSubmitError> {
        let known = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&schema.id()).cloned();
        match known {
            Some(entry) => Ok(entry),
            None => self.new_entry(schema),
        }
    }

    #[cold]
    fn new_entry(&self, schema: &Schema) -> Result<Arc<Entry>, DurableSubmitError> {
        if let Some(refused) = refuse_schema(schema) {
            return Err(DurableSubmitError::refused(refused));
        }
        let name = quoted(schema.table());
        let bytes = schema_record::encode(schema);
        let (table, schema_id) = self.ids(&name, &bytes)?;
        self.feeds.name_table(table, &name);
        self.schemas.add(schema, &bytes);
        let order = KeyOrder::of(schema, self.is_per_table);
        let empty = self.pipeline.row_buffer(schema)?;
        let entry = Arc::new(Entry { schema: schema.clone(), table, schema_id, order, empty });
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(entries.entry(schema.id()).or_insert(entry)))
    }

    fn ids(&self, name: &str, bytes: &[u8]) -> Result<(batchsql_log::TableId, batchsql_log::SchemaId), LogError> {
        Ok((self.log.table(name)?, self.log.schema(bytes)?))
    }
}

/// The name of a table in the log: quoted, so that no two tables have one name.
fn quoted(table: &TableName) -> String {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    match table.namespace() {
        Some(namespace) => format!("{}.{}", quote(namespace), quote(table.name())),
        None => quote(table.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tables_have_one_name() {
        assert_eq!(quoted(&TableName::new("a.b")), "\"a.b\"");
        assert_eq!(quoted(&TableName::qualified("a", "b")), "\"a\".\"b\"");
        assert_eq!(quoted(&TableName::new("a\".\"b")), "\"a\"\".\"\"b\"");
    }
}
