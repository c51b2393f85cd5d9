//! Owns what the handles of one intake share, and the schemas that the log knows.
//! Must not know what callers do with it.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use batchsql_core::{BatchSql, Schema, SchemaId, WhenFull};
use batchsql_feed::key::{KeyOrder, OrderedTables};
use batchsql_feed::{Schemas, block, quoted_table};
use batchsql_log::{Log, LogError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::DurableSubmitError;
use crate::feed::partitions::Partitions;
use crate::health::{DurableCloseReport, Recovered};
use crate::intake::gather::{Entry, Gather};
use crate::intake::in_flight::InFlight;
use crate::intake::space_log::SpaceLog;
use crate::monitor::Monitor;
use crate::refusals::refuse_schema;

pub(crate) struct Shared {
    pub(crate) pipeline: BatchSql,
    pub(crate) log: Log,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) partitions: Arc<Partitions>,
    /// Rows that were acknowledged since the start.
    pub(crate) acknowledged: Arc<AtomicU64>,
    pub(crate) is_exact: bool,
    /// The name of the source, if rows are written exactly once.
    pub(crate) source: Option<String>,
    pub(crate) gather: Arc<Gather>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) space_log: SpaceLog,
    /// By the id of the schema, which an entry keeps.
    pub(crate) entries: RwLock<HashMap<SchemaId, Arc<Entry>>>,
    pub(crate) recovered: Recovered,
    pub(crate) when_full: WhenFull,
    pub(crate) ordered: OrderedTables,
    /// For tests.
    pub(crate) acknowledges_early: bool,
    pub(crate) segment_bytes: u64,
    pub(crate) runtime: Handle,
    pub(crate) appender: Mutex<Option<JoinHandle<()>>>,
    pub(crate) monitor: Arc<Monitor>,
    /// The task of the monitor.
    pub(crate) monitoring: Mutex<Option<JoinHandle<()>>>,
    pub(crate) closing: OnceLock<watch::Receiver<Option<DurableCloseReport>>>,
    /// The earliest deadline of all calls of `close`.
    pub(crate) close_at: watch::Sender<Option<Instant>>,
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
        if let Some(refused) = refuse_schema(schema, self.is_exact) {
            return Err(DurableSubmitError::refused(refused));
        }
        let name = quoted_table(schema.table());
        let bytes = block::encode_schema(schema);
        let (table, schema_id) = self.ids(&name, &bytes)?;
        self.partitions.name_table(table, &name);
        self.schemas.add(schema, &bytes);
        let order = KeyOrder::of(schema, &self.ordered);
        let empty = self.pipeline.row_buffer(schema)?;
        let entry = Arc::new(Entry { schema: schema.clone(), table, schema_id, order, empty });
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(entries.entry(schema.id()).or_insert(entry)))
    }

    fn ids(&self, name: &str, bytes: &[u8]) -> Result<(batchsql_log::TableId, batchsql_log::SchemaId), LogError> {
        Ok((self.log.table(name)?, self.log.schema(bytes)?))
    }
}
