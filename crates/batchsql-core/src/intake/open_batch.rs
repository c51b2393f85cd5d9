//! Owns the batch that is being filled with the rows of one group, in one lane.
//! Must not know other batches of its lane, or who writes a sealed batch.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::time::Instant;

use crate::budget::share::Share;
use crate::intake::group::Group;
use crate::intake::headroom::Headroom;
use crate::model::batch::{Batch, Rows};
use crate::model::column::Column;
use crate::model::columns::ColumnBuffer;
use crate::outcome::receipt::{Completion, Receipt};
use crate::outcome::tracking::{Submitters, Tracking};
use crate::pipeline_events::FlushReason;
use crate::row::error::RowError;
use crate::row::traits::Row;
use crate::row::writer::RowWriter;
use crate::write::batch_limit::BatchLimit;
use crate::write::context::PipelineContext;
use crate::write::ids::LaneId;
use crate::write::job::{Job, Sealed};

/// Columns start with capacity for this many rows, or for as many as the last batch held if there is headroom for that.
const FIRST_CAPACITY: usize = 16;

/// What a sealed batch takes from its lane.
pub(crate) struct SealedBy<'a> {
    pub(crate) lane: LaneId,
    pub(crate) is_ordered: bool,
    pub(crate) share: &'a Arc<Share>,
    pub(crate) limit: &'a Arc<BatchLimit>,
    pub(crate) headroom: &'a Headroom,
    pub(crate) pipeline: &'a Arc<PipelineContext>,
}

/// The batch that is being filled with the rows of one group, in one lane.
pub(crate) struct OpenBatch {
    pub(crate) group: Arc<Group>,
    /// Empty until the first row, so that an idle lane holds no memory.
    columns: Vec<ColumnBuffer>,
    pub(crate) len: usize,
    pub(crate) bytes: usize,
    opened_at: Option<Instant>,
    completion: Option<Arc<Completion>>,
    submitters: Submitters,
    /// Hashes of the keys of the first `hashed` rows. Not used while the lane has one open batch.
    keys: HashSet<u64>,
    hashed: usize,
    /// Rows of the last batch and the variable bytes of its columns: the capacity to start the next with,
    /// so that buffers rarely grow while they are filled.
    last_len: usize,
    last_bytes: Vec<usize>,
    /// Taken from the headroom for this batch.
    headroom: usize,
}

/// Removes a partly written row unless it was completed, also when the row's code panics.
struct Rollback<'a> {
    open: &'a mut OpenBatch,
    completed: bool,
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        if !self.completed {
            self.open.forget_row();
        }
    }
}

impl OpenBatch {
    pub(crate) fn new(group: Arc<Group>) -> Self {
        Self {
            group,
            columns: Vec::new(),
            len: 0,
            bytes: 0,
            opened_at: None,
            completion: None,
            submitters: Submitters::default(),
            keys: HashSet::new(),
            hashed: 0,
            last_len: 0,
            last_bytes: Vec::new(),
            headroom: 0,
        }
    }

    /// When its first row arrived; `None` while it has none.
    pub(crate) fn opened_at(&self) -> Option<Instant> {
        self.opened_at
    }

    /// Writes the values of a row after the last row; the row does not count yet.
    pub(crate) fn write_row<R: Row + ?Sized>(
        &mut self,
        row: &R,
        bytes: usize,
        headroom: &Headroom,
    ) -> Result<(), RowError> {
        if self.columns.is_empty() {
            self.make_columns(headroom);
        }
        let mut rollback = Rollback { open: self, completed: false };
        let OpenBatch { group, columns, .. } = &mut *rollback.open;
        let mut writer = RowWriter::new(&group.schema, columns, group.limits.values);
        row.write(&mut writer)?;
        writer.finish(bytes - group.schema.fixed_row_len())?;
        rollback.completed = true;
        Ok(())
    }

    /// Copies rows of its schema after the last row, column by column; they do not count yet.
    pub(crate) fn write_rows(&mut self, rows: Rows<'_>, headroom: &Headroom) {
        if self.columns.is_empty() {
            self.make_columns(headroom);
        }
        let mut rollback = Rollback { open: self, completed: false };
        let columns = rollback.open.columns.iter_mut().enumerate();
        columns.for_each(|(index, column)| column.extend(rows.column(index)));
        rollback.completed = true;
    }

    #[cold]
    fn make_columns(&mut self, headroom: &Headroom) {
        let schema = &self.group.schema;
        let variable: usize = self.last_bytes.iter().sum();
        let wanted = self.last_len * schema.fixed_row_len() + variable;
        let has_headroom = self.last_len > FIRST_CAPACITY && headroom.take(wanted);
        self.headroom = if has_headroom { wanted } else { 0 };
        let (rows, capacity) =
            if has_headroom { (self.last_len, &*self.last_bytes) } else { (FIRST_CAPACITY, &[][..]) };
        let bytes = capacity.iter().copied().chain(std::iter::repeat(0));
        let column = |(c, bytes): (&Column, usize)| ColumnBuffer::new(c.column_type(), c.is_nullable(), rows, bytes);
        self.columns = schema.columns().iter().zip(bytes).map(column).collect();
    }

    /// Removes what was written after the last row that counts.
    pub(crate) fn forget_row(&mut self) {
        let len = self.len;
        self.columns.iter_mut().for_each(|column| column.truncate(len));
    }

    /// Records when the first row arrived.
    pub(crate) fn opened(&mut self, at: Instant) {
        self.opened_at = Some(at);
    }

    /// The first row was removed.
    pub(crate) fn not_opened(&mut self) {
        self.forget_row();
        self.opened_at = None;
    }

    /// Counts the rows that were written last. The receipt is that of the first one.
    pub(crate) fn keep_rows(&mut self, rows: usize, bytes: usize, tracking: &Tracking) -> Option<Receipt> {
        let index = u32::try_from(self.len).expect("buffer_size fits u32");
        self.len += rows;
        self.bytes += bytes;
        let Tracking::Tracked(span) = tracking else { return None };
        span.iter().for_each(|span| self.submitters.add(span));
        Some(Receipt::new(Arc::clone(self.completion.get_or_insert_default()), index))
    }

    /// The hash of the key of the row that was written and does not count yet.
    pub(crate) fn key_hash_of_last_row(&self) -> u64 {
        self.key_hash(self.len)
    }

    /// Whether a row with a key of this hash may be in it.
    pub(crate) fn may_hold_key(&mut self, hash: u64) -> bool {
        for row in self.hashed..self.len {
            self.keys.insert(self.key_hash(row));
        }
        self.hashed = self.len;
        self.keys.contains(&hash)
    }

    /// Computed from the key columns alone: the hash that selects the lane is the same for adjacent keys, and users may
    /// write their own.
    fn key_hash(&self, row: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        let key = self.group.schema.key_columns().iter();
        key.for_each(|column| self.columns[*column].view(row..row + 1).get(0).hash(&mut hasher));
        hasher.finish()
    }

    /// Closes the batch and starts an empty one.
    pub(crate) fn seal(&mut self, by: &SealedBy<'_>, reason: FlushReason) -> Job {
        let mut columns = std::mem::take(&mut self.columns);
        let (len, bytes) = (std::mem::take(&mut self.len), std::mem::take(&mut self.bytes));
        let headroom = std::mem::take(&mut self.headroom);
        if bytes < headroom / 2 {
            // It was sealed early, and may wait for a long time.
            columns.iter_mut().for_each(ColumnBuffer::shrink);
        }
        by.headroom.give_back(headroom);
        self.last_len = len;
        self.last_bytes.clear();
        // An eighth more, because batches of the same table differ a little.
        self.last_bytes.extend(columns.iter().map(|column| column.variable_len() / 8 * 9));
        self.keys = HashSet::new();
        self.hashed = 0;
        self.group.count_sealed();
        let sealed = Sealed {
            lane: by.lane,
            group: self.group.id,
            commits: Arc::clone(&self.group.commits),
            is_ordered: by.is_ordered,
            batch: Batch::new(self.group.schema.clone(), columns, len, bytes),
            opened_at: self.opened_at.take().expect("a batch with rows has its opening time"),
            reason,
            limit: Arc::clone(by.limit),
            completion: self.completion.take(),
            submitters: std::mem::take(&mut self.submitters),
            share: by.share.hold(len, bytes),
        };
        Job::new(sealed, Arc::clone(by.pipeline))
    }
}
