//! Owns the handle of the sink, and what a test reads from it.
//! Must not know what the sink does with a call.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use batchsql_core::DynRow;
use tokio::sync::Semaphore;

use super::state::{Shared, State};
use crate::model::Model;

/// A sink for tests. Clones share everything.
///
/// Each write takes the next step of the script; when there is none, it applies the rows. A write that contains a
/// poisoned row fails as a whole with [`ErrorClass::Row`](batchsql_core::ErrorClass::Row), as on PostgreSQL, and applies
/// nothing. What is applied follows the conflict rules ([`Model`]): rows that the rule ignores are reported as ignored.
#[derive(Clone)]
pub struct ScriptedSink(pub(super) Arc<Shared>);

impl Default for ScriptedSink {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptedSink {
    /// A sink that applies everything.
    pub fn new() -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), released: Semaphore::new(0) }))
    }

    /// Every row that was applied, in the order of application.
    pub fn applied(&self) -> Vec<DynRow> {
        self.lock().batches.concat()
    }

    /// The rows that were applied, one entry per write.
    pub fn batches(&self) -> Vec<Vec<DynRow>> {
        self.lock().batches.clone()
    }

    /// What is in the tables now.
    pub fn tables(&self) -> Model {
        self.lock().model.clone()
    }

    /// How many writes were tried.
    pub fn writes(&self) -> usize {
        self.lock().writes
    }

    /// How many times a table was checked.
    pub fn prepares(&self) -> usize {
        self.lock().prepares
    }

    /// How often it was asked for that.
    pub fn looks(&self) -> usize {
        self.lock().looks
    }

    /// How many sessions were ended.
    pub fn ended_sessions(&self) -> usize {
        self.lock().ended.len()
    }

    /// The position of a partition of a table, whatever its source is; `None` if it was never claimed.
    pub fn position(&self, table: &str, partition: u32) -> Option<i64> {
        self.lock().positions.of(table, partition).map(|position| position.sequence)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ScriptedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("ScriptedSink")
            .field("script", &state.script)
            .field("writes", &state.writes)
            .finish_non_exhaustive()
    }
}
