//! Owns the open batches: one per table and lane, filled on the caller's task under a short lock.
//! Must not know who writes a sealed batch, or when.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::batch::Batch;
use crate::columns::ColumnBuffer;
use crate::config::{Ordering, PipelineConfig};
use crate::dispatch::Message;
use crate::error::{RowError, SubmitError};
use crate::job::{Job, Progress};
use crate::ledger::Ledger;
use crate::queue::Reservation;
use crate::receipt::{Completion, Receipt};
use crate::reporter::{BatchSealed, FlushReason};
use crate::row::{Row, RowWriter};
use crate::schema::{Column, Schema};
use crate::sink::Limits;

/// Columns start with room for this many rows, and later for as many as the last batch held, up to a
/// limit: this room is not in the budget.
const FIRST_CAPACITY: usize = 16;
const MAX_CAPACITY: usize = 512;
/// The same for the variable bytes of a column.
const MAX_CAPACITY_BYTES: usize = 16 << 10;

/// Lanes of a table whose order does not matter, at most.
const MAX_SPARE_LANES: usize = 4;

/// Everything that `push` needs besides the row; one per pipeline.
pub(crate) struct Intake {
    pub(crate) messages: mpsc::UnboundedSender<Message>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) closed: AtomicBool,
    pub(crate) flush_size: usize,
    pub(crate) flush_bytes: usize,
}

/// One schema's open batches.
pub(crate) struct Table {
    schema: Schema,
    limits: Limits,
    lanes: Box<[Mutex<Lane>]>,
    /// Whether a lane may have only one batch on its way, so that its rows keep their order.
    serial: bool,
    /// A number of its own within the pipeline.
    number: usize,
}

/// Rows with equal keys meet in one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId {
    pub(crate) table: usize,
    pub(crate) lane: usize,
}

/// What waits in a lane. Sealed batches stay here until the dispatcher takes them, so that their order
/// is the order of the lock, and none is lost between a submitter and a closing dispatcher.
#[derive(Default)]
struct Lane {
    open: OpenBatch,
    sealed: VecDeque<Job>,
}

/// The batch that is being filled.
#[derive(Default)]
struct OpenBatch {
    /// Empty until the first row, so that an idle lane holds no memory.
    columns: Vec<ColumnBuffer>,
    len: usize,
    bytes: usize,
    opened_at: Option<Instant>,
    /// Counts sealed batches, so that a late deadline can tell that it is late.
    generation: u64,
    completion: Option<Arc<Completion>>,
    accepted: u64,
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
    /// Writes the values of a row behind the last row; the row does not count yet.
    fn write_row<R: Row + ?Sized>(&mut self, table: &Table, row: &R, bytes: usize) -> Result<(), RowError> {
        let schema = &table.schema;
        if self.columns.is_empty() {
            let capacity = self.last_len.clamp(FIRST_CAPACITY, MAX_CAPACITY);
            let bytes = self.last_bytes.iter().copied().chain(std::iter::repeat(0));
            let column =
                |(c, bytes): (&Column, usize)| ColumnBuffer::new(c.column_type(), c.is_nullable(), capacity, bytes);
            self.columns = schema.columns().iter().zip(bytes).map(column).collect();
        }
        let mut rollback = Rollback { open: self, completed: false };
        let mut writer = RowWriter::new(schema, &mut rollback.open.columns, table.limits.values);
        row.write(&mut writer)?;
        writer.finish(bytes - schema.fixed_row_len())?;
        rollback.completed = true;
        Ok(())
    }

    /// Takes back what was written behind the last row that counts.
    fn forget_row(&mut self) {
        let len = self.len;
        self.columns.iter_mut().for_each(|column| column.truncate(len));
    }
}

/// As many lanes as submitters can run at once, within reason.
fn spare_lanes() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_SPARE_LANES)
}

impl Table {
    pub(crate) fn new(
        schema: Schema,
        limits: Limits,
        config: &PipelineConfig,
        concurrency: usize,
        number: usize,
    ) -> Self {
        let keyed = !schema.key_columns().is_empty();
        let (lanes, serial) = match config.ordering {
            Ordering::Auto | Ordering::PerKey if keyed => (concurrency, true),
            Ordering::PerTable => (1, true),
            // Without a key there is no order to keep: further lanes are for submitters that would
            // otherwise wait for each other.
            Ordering::Auto | Ordering::PerKey | Ordering::None => (spare_lanes(), false),
        };
        let lanes = (0..lanes).map(|_| Mutex::default()).collect();
        Self { schema, limits, lanes, serial, number }
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn is_serial(&self) -> bool {
        self.serial
    }

    pub(crate) fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// The lane of a row, locked. Where order does not matter that is the first one that nobody holds,
    /// so that there is only one open batch unless submitters meet.
    fn lock_for<R: Row + ?Sized>(&self, row: &R) -> (usize, MutexGuard<'_, Lane>) {
        if self.serial {
            let lane = match self.lanes.len() {
                1 => 0,
                lanes => (row.key_hash() % lanes as u64) as usize,
            };
            return (lane, self.lock(lane));
        }
        for (number, lane) in self.lanes.iter().enumerate() {
            match lane.try_lock() {
                Ok(guard) => return (number, guard),
                Err(TryLockError::Poisoned(poisoned)) => return (number, poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        (0, self.lock(0))
    }

    fn lock(&self, lane: usize) -> MutexGuard<'_, Lane> {
        // A panic under the lock is rolled back, so the data behind a poisoned lock is sound.
        self.lanes[lane].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows accepted since the start, over all lanes.
    pub(crate) fn accepted(&self) -> u64 {
        (0..self.lanes.len()).map(|lane| self.lock(lane).open.accepted).sum()
    }

    /// Encodes a row into its lane's open batch and seals that batch when it is full. The caller has
    /// reserved `bytes` for it, which the batch takes over. Not accepted means: nothing of it is kept.
    pub(crate) fn push<R: Row + ?Sized>(
        self: &Arc<Self>,
        intake: &Intake,
        row: &R,
        bytes: usize,
        tracked: bool,
        reservation: &mut Reservation<'_>,
    ) -> Result<Option<Receipt>, SubmitError> {
        let (lane, mut guard) = self.lock_for(row);
        if intake.closed.load(Atomic::SeqCst) {
            return Err(SubmitError::closed());
        }
        let Lane { open, sealed } = &mut *guard;
        open.write_row(self, row, bytes)?;
        let fills = open.len + 1 >= intake.flush_size;
        let reason = if fills { FlushReason::Rows } else { FlushReason::Bytes };
        let full = fills || open.bytes + bytes >= intake.flush_bytes;
        let id = LaneId { table: self.number, lane };
        if open.len == 0 {
            let now = Instant::now();
            open.opened_at = Some(now);
            let opened = Message::Opened { table: Arc::clone(self), lane: id, generation: open.generation, at: now };
            if !full && intake.messages.send(opened).is_err() {
                open.forget_row();
                return Err(SubmitError::closed());
            }
        }
        reservation.keep_row(bytes);
        let index = u32::try_from(open.len).expect("buffer_size fits u32");
        open.len += 1;
        open.bytes += bytes;
        open.accepted += 1;
        let receipt = tracked.then(|| Receipt::new(Arc::clone(open.completion.get_or_insert_default()), index));
        if full {
            sealed.push_back(self.seal_open(open, lane, reason, &intake.ledger));
            // A dispatcher that does not take messages any more looks through the lanes before it ends.
            let _ = intake.messages.send(Message::Sealed { table: Arc::clone(self), lane: id });
        }
        Ok(receipt)
    }

    /// Takes the sealed batches of a lane, the oldest first.
    pub(crate) fn take_sealed(&self, lane: usize) -> VecDeque<Job> {
        let jobs = std::mem::take(&mut self.lock(lane).sealed);
        told(jobs)
    }

    /// Takes every batch of a lane, the open one last.
    pub(crate) fn take_all(&self, lane: usize, reason: FlushReason, ledger: &Arc<Ledger>) -> VecDeque<Job> {
        let mut guard = self.lock(lane);
        let Lane { open, sealed } = &mut *guard;
        if open.len > 0 {
            sealed.push_back(self.seal_open(open, lane, reason, ledger));
        }
        let jobs = std::mem::take(sealed);
        drop(guard);
        told(jobs)
    }

    /// Seals and takes a lane's open batch if it still is the one of `generation`.
    pub(crate) fn take_open(&self, lane: usize, generation: u64, ledger: &Arc<Ledger>) -> Option<Job> {
        let job = {
            let open = &mut self.lock(lane).open;
            let current = open.len > 0 && open.generation == generation;
            current.then(|| self.seal_open(open, lane, FlushReason::Interval, ledger))
        };
        told(job.into_iter().collect()).pop_front()
    }

    fn seal_open(&self, open: &mut OpenBatch, lane: usize, reason: FlushReason, ledger: &Arc<Ledger>) -> Job {
        let columns = std::mem::take(&mut open.columns);
        let (len, bytes) = (std::mem::take(&mut open.len), std::mem::take(&mut open.bytes));
        open.last_len = len;
        open.last_bytes.clear();
        // An eighth more, because batches of the same table differ a little.
        let room = columns.iter().map(|column| (column.variable_len() / 8 * 9).min(MAX_CAPACITY_BYTES));
        open.last_bytes.extend(room);
        let generation = open.generation;
        open.generation += 1;
        Job {
            lane: LaneId { table: self.number, lane },
            generation,
            batch: Arc::new(Batch::new(self.schema.clone(), columns, len, bytes)),
            completion: open.completion.take(),
            context: ledger.reporter.call(|reporter| reporter.context()),
            opened_at: open.opened_at.take().expect("a batch with rows has its opening time"),
            reason,
            ledger: Arc::clone(ledger),
            progress: Progress::default(),
        }
    }
}

/// Tells the reporter of sealed batches as they leave their lane, when its lock is no longer held.
fn told(jobs: VecDeque<Job>) -> VecDeque<Job> {
    for job in &jobs {
        let sealed = BatchSealed { reason: job.reason };
        job.ledger.reporter.call(|reporter| reporter.batch_sealed(&job.info(), &sealed));
    }
    jobs
}
