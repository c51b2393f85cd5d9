//! Owns the rows of one shape: a schema, and the batch that is being filled with its rows.
//! Must not know lanes, or who writes a sealed batch.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering as Atomic};

use tokio::time::Instant;

use crate::intake::table::{LaneId, Table};
use crate::model::batch::Batch;
use crate::model::columns::ColumnBuffer;
use crate::model::schema::{Column, Schema};
use crate::outcome::ledger::Ledger;
use crate::outcome::receipt::{Completion, Receipt};
use crate::reporter::FlushReason;
use crate::row::error::RowError;
use crate::row::traits::Row;
use crate::row::writer::RowWriter;
use crate::write::job::{Job, Progress};
use crate::write::sink::Limits;

/// Columns start with room for this many rows, and later for as many as the last batch held, up to a
/// limit: this room is not in the budget.
const FIRST_CAPACITY: usize = 16;
const MAX_CAPACITY: usize = 512;
/// The same for the variable bytes of a column.
const MAX_CAPACITY_BYTES: usize = 16 << 10;

/// Rows of one schema. Rows of a table that leave out different columns are different groups.
pub(crate) struct Group {
    /// A number of its own within the pipeline.
    pub(crate) number: usize,
    pub(crate) schema: Schema,
    pub(crate) limits: Limits,
    pub(crate) table: Arc<Table>,
    /// Sealed batches that have not ended.
    jobs: AtomicUsize,
    /// It was idle and is gone: its rows belong to a new group. Changes only under all locks of the
    /// table's lanes.
    retired: AtomicBool,
}

impl Group {
    pub(crate) fn new(number: usize, schema: Schema, limits: Limits, table: Arc<Table>) -> Self {
        Self { number, schema, limits, table, jobs: AtomicUsize::new(0), retired: AtomicBool::new(false) }
    }

    /// Whether its rows belong to a new group. Ask under the lock of a lane.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Atomic::Relaxed)
    }

    /// Ends the group. Call it under the locks of all lanes.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Atomic::Relaxed);
    }

    /// Whether every sealed batch has ended.
    pub(crate) fn has_no_jobs(&self) -> bool {
        self.jobs.load(Atomic::Acquire) == 0
    }

    /// A sealed batch has ended. Its room must be released after this.
    pub(crate) fn job_ended(&self, rows: usize, bytes: usize) {
        self.table.share.remove(rows, bytes);
        self.jobs.fetch_sub(1, Atomic::Release);
    }
}

/// The batch that is being filled with the rows of one group, in one lane.
pub(crate) struct OpenBatch {
    pub(crate) group: Arc<Group>,
    /// Empty until the first row, so that an idle lane holds no memory.
    columns: Vec<ColumnBuffer>,
    pub(crate) len: usize,
    pub(crate) bytes: usize,
    opened_at: Option<Instant>,
    /// Counts sealed batches, so that a late deadline can tell that it is late.
    pub(crate) generation: u64,
    completion: Option<Arc<Completion>>,
    /// Hashes of the keys of the first `hashed` rows. Nobody asks while the lane has one open batch.
    keys: HashSet<u64>,
    hashed: usize,
    /// Rows of the last batch and the variable bytes of its columns: the room to start the next with,
    /// so that buffers rarely grow while they are filled.
    last_len: usize,
    last_bytes: Vec<usize>,
}

/// Takes a half-written row back unless it was completed, also when the row's code panics.
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
            generation: 0,
            completion: None,
            keys: HashSet::new(),
            hashed: 0,
            last_len: 0,
            last_bytes: Vec::new(),
        }
    }

    /// Writes the values of a row behind the last row; the row does not count yet.
    pub(crate) fn write_row<R: Row + ?Sized>(&mut self, row: &R, bytes: usize) -> Result<(), RowError> {
        if self.columns.is_empty() {
            let capacity = self.last_len.clamp(FIRST_CAPACITY, MAX_CAPACITY);
            let bytes = self.last_bytes.iter().copied().chain(std::iter::repeat(0));
            let column =
                |(c, bytes): (&Column, usize)| ColumnBuffer::new(c.column_type(), c.is_nullable(), capacity, bytes);
            self.columns = self.group.schema.columns().iter().zip(bytes).map(column).collect();
        }
        let mut rollback = Rollback { open: self, completed: false };
        let OpenBatch { group, columns, .. } = &mut *rollback.open;
        let mut writer = RowWriter::new(&group.schema, columns, group.limits.values);
        row.write(&mut writer)?;
        writer.finish(bytes - group.schema.fixed_row_len())?;
        rollback.completed = true;
        Ok(())
    }

    /// Takes back what was written behind the last row that counts.
    pub(crate) fn forget_row(&mut self) {
        let len = self.len;
        self.columns.iter_mut().for_each(|column| column.truncate(len));
    }

    /// Says when the first row came.
    pub(crate) fn opened(&mut self, at: Instant) {
        self.opened_at = Some(at);
    }

    /// Counts the row that was written last.
    pub(crate) fn keep_row(&mut self, bytes: usize, tracked: bool) -> Option<Receipt> {
        let index = u32::try_from(self.len).expect("buffer_size fits u32");
        self.len += 1;
        self.bytes += bytes;
        tracked.then(|| Receipt::new(Arc::clone(self.completion.get_or_insert_default()), index))
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

    /// From the columns, and of the key alone: the hash that finds the lane is shared by neighbours, and users may
    /// write their own.
    fn key_hash(&self, row: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        let key = self.group.schema.key_columns().iter();
        key.for_each(|column| self.columns[*column].view(row..row + 1).get(0).hash(&mut hasher));
        hasher.finish()
    }

    /// Closes the batch and starts an empty one.
    pub(crate) fn seal(&mut self, lane: LaneId, reason: FlushReason, ledger: &Arc<Ledger>) -> Job {
        let columns = std::mem::take(&mut self.columns);
        let (len, bytes) = (std::mem::take(&mut self.len), std::mem::take(&mut self.bytes));
        self.last_len = len;
        self.last_bytes.clear();
        // An eighth more, because batches of the same table differ a little.
        let room = columns.iter().map(|column| (column.variable_len() / 8 * 9).min(MAX_CAPACITY_BYTES));
        self.last_bytes.extend(room);
        self.keys = HashSet::new();
        self.hashed = 0;
        let generation = self.generation;
        self.generation += 1;
        self.group.jobs.fetch_add(1, Atomic::Relaxed);
        self.group.table.share.add(len, bytes);
        Job {
            lane,
            generation,
            batch: Arc::new(Batch::new(self.group.schema.clone(), columns, len, bytes)),
            group: Arc::clone(&self.group),
            completion: self.completion.take(),
            context: ledger.reporter.call(|reporter| reporter.context()),
            opened_at: self.opened_at.take().expect("a batch with rows has its opening time"),
            reason,
            ledger: Arc::clone(ledger),
            progress: Progress::default(),
        }
    }
}
