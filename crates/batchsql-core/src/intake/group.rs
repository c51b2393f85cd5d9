//! Owns the group of rows with one schema within a pipeline, and whether the group is still used.
//! Must not know lanes or tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::model::schema::Schema;
use crate::write::commits::Commits;
use crate::write::ids::GroupId;
use crate::write::sink::Limits;

/// Rows of one schema. Rows of a table that leave out different columns are different groups.
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) schema: Schema,
    pub(crate) limits: Limits,
    /// Cloned into each sealed batch.
    pub(crate) commits: Arc<Commits>,
    /// Batches that were sealed since the start.
    sealed: AtomicU64,
    /// It was idle and was removed: its rows belong to a new group. Changes only under all locks of the table's lanes.
    retired: AtomicBool,
}

impl Group {
    pub(crate) fn new(id: GroupId, schema: Schema, limits: Limits) -> Self {
        let (commits, sealed, retired) = Default::default();
        Self { id, schema, limits, commits, sealed, retired }
    }

    /// Whether its rows belong to a new group. Call it under the lock of a lane.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Ends the group. Call it under the locks of all lanes.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Counts a batch that was sealed.
    pub(crate) fn count_sealed(&self) {
        self.sealed.fetch_add(1, Ordering::Relaxed);
    }

    /// Batches that were sealed since the start.
    pub(crate) fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Relaxed)
    }

    /// Whether every sealed batch has ended.
    pub(crate) fn has_no_batches(&self) -> bool {
        Arc::strong_count(&self.commits) == 1
    }
}
