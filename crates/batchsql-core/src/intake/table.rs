//! Owns the lanes of one table: which open batch takes a row, and in which order batches leave.
//! Must not know who writes a sealed batch, or when.
//!
//! A lane has one open batch per group. Where order matters, the open batches of a lane hold different
//! keys, so it does not matter which of them is written first; a row whose key is in the open batch of
//! another group seals that one, which then leaves first.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::budget::count::{Reservation, Share};
use crate::config::{Ordering, PipelineConfig};
use crate::dispatch::dispatcher::Message;
use crate::intake::group::{Group, OpenBatch};
use crate::model::schema::Schema;
use crate::outcome::ledger::Ledger;
use crate::outcome::receipt::Receipt;
use crate::pipeline::error::SubmitError;
use crate::reporter::{BatchSealed, FlushReason};
use crate::row::traits::Row;
use crate::write::job::Job;

/// Lanes of a table whose order does not matter, at most.
const MAX_SPARE_LANES: usize = 4;

thread_local! {
    /// The lane that this thread used last in a table without an order; a hint.
    static SPARE_LANE: Cell<usize> = const { Cell::new(0) };
}

/// Everything that `push` needs besides the row; one per pipeline.
pub(crate) struct Intake {
    pub(crate) messages: mpsc::UnboundedSender<Message>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) closed: Arc<AtomicBool>,
    pub(crate) flush_size: usize,
    pub(crate) flush_bytes: usize,
}

/// The rows of a table whose order among each other is kept: one table name and one key.
pub(crate) struct Table {
    /// A number of its own within the pipeline.
    number: usize,
    name: Box<str>,
    lanes: Box<[Mutex<Lane>]>,
    order: Order,
    pub(crate) share: Arc<Share>,
    /// Whether its last batch took long. Slow tables leave a permit to the others.
    pub(crate) slow: AtomicBool,
}

/// What is kept in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Nothing,
    /// Rows with equal keys; they meet in one lane.
    Key,
    /// All rows; there is one lane.
    Table,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId {
    pub(crate) table: usize,
    pub(crate) lane: usize,
}

/// The open batch of one group in one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OpenId {
    pub(crate) lane: LaneId,
    pub(crate) group: usize,
}

/// What waits in a lane. Sealed batches stay here until the dispatcher takes them, so that their order
/// is the order of the lock, and none is lost between a submitter and a closing dispatcher.
///
/// Lanes lie side by side: without the alignment, submitters in different lanes would share cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Lane {
    open: Vec<OpenBatch>,
    sealed: VecDeque<Job>,
    /// Batches sealed since the start.
    seals: u64,
    accepted: u64,
}

/// An open batch that is to be taken when it can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DueBatch {
    pub(crate) id: OpenId,
    pub(crate) generation: u64,
    /// How many batches its lane had sealed when nothing was before it.
    pub(crate) seals: u64,
}

/// Why a row is not in a batch.
pub(crate) enum NotPushed {
    /// The group was idle and is gone: ask for it again.
    Retired,
    Refused(SubmitError),
}

impl<E: Into<SubmitError>> From<E> for NotPushed {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// As many lanes as submitters can run at once, within reason. One for a sink that writes one or two batches
/// at once: it is slower than any lane, and is faster with neighbouring rows in one batch (measured with
/// SQLite: keys that are about sorted).
fn spare_lanes(concurrency: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if concurrency <= 2 { 1 } else { cores.min(MAX_SPARE_LANES) }
}

impl Table {
    pub(crate) fn new(number: usize, schema: &Schema, config: &PipelineConfig, concurrency: usize) -> Self {
        let keyed = !schema.key_columns().is_empty();
        let (lanes, order) = match config.ordering {
            Ordering::Auto | Ordering::PerKey if keyed => (concurrency, Order::Key),
            Ordering::PerTable => (1, Order::Table),
            // Without a key there is no order to keep: further lanes are for submitters that would
            // otherwise wait for each other.
            Ordering::Auto | Ordering::PerKey | Ordering::None => (spare_lanes(concurrency), Order::Nothing),
        };
        Self {
            number,
            name: schema.table_display().into(),
            lanes: (0..lanes).map(|_| Mutex::default()).collect(),
            order,
            share: Arc::default(),
            slow: AtomicBool::new(false),
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// `namespace.table`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a lane may have only one batch on its way.
    pub(crate) fn is_serial(&self) -> bool {
        self.order != Order::Nothing
    }

    pub(crate) fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// Rows accepted since the start, over all lanes.
    pub(crate) fn accepted(&self) -> u64 {
        (0..self.lanes.len()).map(|lane| self.lock(lane).accepted).sum()
    }

    /// The lane of a row, locked. Where order does not matter that is the first one that nobody holds,
    /// so that there is only one open batch unless submitters meet.
    fn lock_for<R: Row + ?Sized>(&self, row: &R) -> (usize, MutexGuard<'_, Lane>) {
        if self.is_serial() {
            let lane = match self.lanes.len() {
                1 => 0,
                lanes => (row.key_hash() % lanes as u64) as usize,
            };
            return (lane, self.lock(lane));
        }
        // A thread stays with a lane for a batch, so that threads that met once do not fight for the first
        // lane with every row.
        let first = SPARE_LANE.get();
        for number in (first..self.lanes.len()).chain(0..first.min(self.lanes.len())) {
            match self.lanes[number].try_lock() {
                Ok(guard) => {
                    // Before it opens another batch it looks at the first lane again: threads that do not meet
                    // any more fill one batch together, and no row is left behind alone.
                    if number > 0
                        && guard.open.iter().all(|open| open.len == 0)
                        && let Ok(first) = self.lanes[0].try_lock()
                    {
                        SPARE_LANE.set(0);
                        return (0, first);
                    }
                    SPARE_LANE.set(number);
                    return (number, guard);
                }
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

    /// Encodes a row into its lane's open batch and seals that batch when it is full. The caller has
    /// reserved `bytes` for it, which the batch takes over. Not accepted means: nothing of it is kept.
    pub(crate) fn push<R: Row + ?Sized>(
        self: &Arc<Self>,
        group: &Arc<Group>,
        intake: &Intake,
        row: &R,
        bytes: usize,
        tracked: bool,
        reservation: &mut Reservation<'_>,
    ) -> Result<Option<Receipt>, NotPushed> {
        let (number, mut guard) = self.lock_for(row);
        if intake.closed.load(Atomic::SeqCst) {
            return Err(SubmitError::closed().into());
        }
        if group.is_retired() {
            return Err(NotPushed::Retired);
        }
        let id = LaneId { table: self.number, lane: number };
        let lane = &mut *guard;
        let place = lane.open_batch_of(group);
        lane.open[place].write_row(row, bytes)?;
        if lane.open.len() > 1 && self.is_serial() && lane.make_way(self.order, place, id, &intake.ledger) {
            // A dispatcher that does not take messages any more looks through the lanes before it ends.
            let _ = intake.messages.send(Message::Sealed { table: Arc::clone(self), lane: id });
        }
        let open = &mut lane.open[place];
        let fills = open.len + 1 >= intake.flush_size;
        let reason = if fills { FlushReason::Rows } else { FlushReason::Bytes };
        let full = fills || open.bytes + bytes >= intake.flush_bytes;
        if open.len == 0 {
            let at = Instant::now();
            open.opened(at);
            let batch = OpenId { lane: id, group: group.number };
            let opened = Message::Opened { table: Arc::clone(self), batch, generation: open.generation, at };
            if !full && intake.messages.send(opened).is_err() {
                open.forget_row();
                return Err(SubmitError::closed().into());
            }
        }
        reservation.keep_row(bytes);
        let receipt = open.keep_row(bytes, tracked);
        lane.accepted += 1;
        if full {
            lane.sealed.push_back(open.seal(id, reason, &intake.ledger));
            lane.seals += 1;
            let _ = intake.messages.send(Message::Sealed { table: Arc::clone(self), lane: id });
        }
        Ok(receipt)
    }

    /// Takes the sealed batches of a lane, the oldest first, and says how many it has sealed so far.
    pub(crate) fn take_sealed(&self, lane: usize) -> (VecDeque<Job>, u64) {
        let (jobs, seals) = {
            let mut lane = self.lock(lane);
            (std::mem::take(&mut lane.sealed), lane.seals)
        };
        (told(jobs), seals)
    }

    /// Takes every batch of a lane, the open ones last.
    pub(crate) fn take_all(&self, lane: usize, reason: FlushReason, ledger: &Arc<Ledger>) -> VecDeque<Job> {
        let id = LaneId { table: self.number, lane };
        let mut guard = self.lock(lane);
        let Lane { open, sealed, seals, .. } = &mut *guard;
        for open in open.iter_mut().filter(|open| open.len > 0) {
            sealed.push_back(open.seal(id, reason, ledger));
            *seals += 1;
        }
        let jobs = std::mem::take(sealed);
        drop(guard);
        told(jobs)
    }

    /// Seals and takes an open batch if it still is the one that was due. Where order matters and other
    /// batches of the lane were sealed since, its newest rows may belong after theirs: then it is put
    /// behind them and `messages` is told.
    pub(crate) fn take_due(
        self: &Arc<Self>,
        batch: DueBatch,
        ledger: &Arc<Ledger>,
        messages: &mpsc::WeakUnboundedSender<Message>,
    ) -> Option<Job> {
        let lane = batch.id.lane;
        let mut guard = self.lock(lane.lane);
        let Lane { open, sealed, seals, .. } = &mut *guard;
        let open = open.iter_mut().find(|open| open.group.number == batch.id.group)?;
        if open.len == 0 || open.generation != batch.generation {
            return None;
        }
        let job = open.seal(lane, FlushReason::Interval, ledger);
        *seals += 1;
        if self.is_serial() && *seals != batch.seals + 1 {
            sealed.push_back(job);
            drop(guard);
            // Without a sender every handle is gone, and the dispatcher looks through the lanes.
            if let Some(messages) = messages.upgrade() {
                let _ = messages.send(Message::Sealed { table: Arc::clone(self), lane });
            }
            return None;
        }
        drop(guard);
        told(VecDeque::from([job])).pop_front()
    }

    /// Seals an open batch if it still is the one that was due, behind everything that is sealed.
    pub(crate) fn seal_due(&self, batch: DueBatch, ledger: &Arc<Ledger>) {
        let lane = batch.id.lane;
        let mut guard = self.lock(lane.lane);
        let Lane { open, sealed, seals, .. } = &mut *guard;
        let is_it = |open: &&mut OpenBatch| {
            open.group.number == batch.id.group && open.len > 0 && open.generation == batch.generation
        };
        if let Some(open) = open.iter_mut().find(is_it) {
            sealed.push_back(open.seal(lane, FlushReason::Interval, ledger));
            *seals += 1;
        }
    }

    /// Ends a group if it holds nothing and has sealed no batch since `generations`. Returns the number of
    /// batches that it has sealed, or `None` when it is gone.
    pub(crate) fn retire_if_idle(&self, group: &Arc<Group>, generations: Option<u64>) -> Option<u64> {
        let mut lanes: Vec<_> = (0..self.lanes.len()).map(|lane| self.lock(lane)).collect();
        let is_of = |open: &&OpenBatch| Arc::ptr_eq(&open.group, group);
        let sealed = lanes.iter().flat_map(|lane| lane.open.iter().filter(is_of)).map(|open| open.generation).sum();
        let is_empty = lanes.iter().flat_map(|lane| lane.open.iter().filter(is_of)).all(|open| open.len == 0);
        if !is_empty || generations != Some(sealed) || !group.has_no_jobs() {
            return Some(sealed);
        }
        group.retire();
        lanes.iter_mut().for_each(|lane| lane.open.retain(|open| !Arc::ptr_eq(&open.group, group)));
        None
    }
}

impl Lane {
    /// The place of a group's open batch.
    #[inline]
    fn open_batch_of(&mut self, group: &Arc<Group>) -> usize {
        match self.open.iter().position(|open| Arc::ptr_eq(&open.group, group)) {
            Some(place) => place,
            None => {
                self.open.push(OpenBatch::new(Arc::clone(group)));
                self.open.len() - 1
            }
        }
    }

    /// Seals what must be written before the row that was written last into the open batch at `place`;
    /// true when there was something.
    #[cold]
    fn make_way(&mut self, order: Order, place: usize, id: LaneId, ledger: &Arc<Ledger>) -> bool {
        let hash = self.open[place].key_hash_of_last_row();
        let before = self.sealed.len();
        for (other, open) in self.open.iter_mut().enumerate().filter(|(_, open)| open.len > 0) {
            if other != place && (order == Order::Table || open.may_hold_key(hash)) {
                self.sealed.push_back(open.seal(id, FlushReason::Order, ledger));
                self.seals += 1;
            }
        }
        self.sealed.len() > before
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

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("name", &self.name).finish_non_exhaustive()
    }
}
