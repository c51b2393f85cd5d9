//! Owns the lanes of one table, and which of them takes a row.
//! Must not know who writes a sealed batch, or when.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::budget::guards::Reservation;
use crate::budget::share::Share;
use crate::config_policies::Ordering;
use crate::config_table::TableSettings;
use crate::intake::group::Group;
use crate::intake::headroom::Headroom;
use crate::intake::lane::{Lane, LaneStatus, Order, Pull, PullLimit};
use crate::intake::message::Message;
use crate::intake::open_batch::{OpenBatch, SealedBy};
use crate::model::batch::Rows;
use crate::model::schema::Schema;
use crate::outcome::receipt::Receipt;
use crate::outcome::tracking::Tracking;
use crate::pipeline_events::FlushReason;
use crate::row::error::RowError;
use crate::row::traits::Row;
use crate::write::batch_limit::BatchLimit;
use crate::write::context::PipelineContext;
use crate::write::ids::{GroupId, LaneId};
use crate::write::job::Job;

/// The most lanes of a table without an order.
const MAX_SPARE_LANES: usize = 4;

thread_local! {
    /// The lane that this thread used last in a table without an order; a hint.
    static SPARE_LANE: Cell<usize> = const { Cell::new(0) };
}

/// What all tables of a pipeline share.
pub(crate) struct Intake {
    pub(crate) pipeline: Arc<PipelineContext>,
    /// Set when no more rows are accepted.
    pub(crate) closed: AtomicBool,
    pub(crate) flush_bytes: usize,
    pub(crate) headroom: Headroom,
}

/// Rows that keep their order: those of one table name and one key, or those of one table name if all of its rows are
/// in order.
pub(crate) struct Table {
    /// Unique within the pipeline.
    number: usize,
    name: Box<str>,
    lanes: Box<[Mutex<Lane>]>,
    order: Order,
    flush_size: usize,
    pub(crate) share: Arc<Share>,
    limit: Arc<BatchLimit>,
    intake: Arc<Intake>,
}

/// Why a row is not in a batch.
pub(crate) enum NotPushed {
    /// The group was idle and was removed: look it up again.
    Retired,
    Closed,
    Row(RowError),
}

impl From<RowError> for NotPushed {
    fn from(error: RowError) -> Self {
        Self::Row(error)
    }
}

/// As many lanes as submitters can run at once, up to a limit. One lane for a sink that writes one or two batches at
/// once: it is slower than any lane, and faster with adjacent rows in one batch (measured with SQLite and nearly sorted
/// keys).
fn spare_lanes(concurrency: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if concurrency <= 2 { 1 } else { cores.min(MAX_SPARE_LANES) }
}

impl Table {
    pub(crate) fn new(
        number: usize,
        schema: &Schema,
        settings: TableSettings,
        concurrency: usize,
        intake: &Arc<Intake>,
    ) -> Self {
        let keyed = !schema.key_columns().is_empty();
        let (lanes, order) = match settings.ordering {
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
            flush_size: settings.flush_size,
            share: Arc::default(),
            limit: Arc::new(BatchLimit::new(settings, lanes)),
            intake: Arc::clone(intake),
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// `namespace.table`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a lane may have only one batch in flight.
    pub(crate) fn is_serial(&self) -> bool {
        self.order.is_serial()
    }

    /// The settings of the table.
    pub(crate) fn settings(&self) -> &TableSettings {
        &self.limit.settings
    }

    /// The rows that one write may carry.
    pub(crate) fn batch_limit(&self) -> &BatchLimit {
        &self.limit
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = LaneId> + use<> {
        let table = self.number;
        (0..self.lanes.len()).map(move |lane| LaneId { table, lane })
    }

    /// Rows accepted since the start, over all lanes.
    pub(crate) fn accepted(&self) -> u64 {
        (0..self.lanes.len()).map(|lane| self.lock(lane).accepted).sum()
    }

    /// Encodes a row into its lane's open batch and seals that batch when it is full. The caller has reserved `bytes`
    /// for it, which the batch takes over. If the row is not accepted, nothing of it is kept.
    pub(crate) fn push<R: Row + ?Sized>(
        &self,
        group: &Arc<Group>,
        messages: &mpsc::UnboundedSender<Message>,
        row: &R,
        bytes: usize,
        tracking: &Tracking,
        reservation: &mut Reservation<'_>,
    ) -> Result<Option<Receipt>, NotPushed> {
        let (number, mut guard) = self.lock_for(|| row.key_hash());
        self.check_open(group)?;
        let lane = &mut *guard;
        let place = lane.open_batch_of(group);
        lane.open[place].write_row(row, bytes, &self.intake.headroom)?;
        if lane.open.len() > 1 && self.is_serial() && lane.make_way(self.order, place, &self.sealed_by(number)) {
            // A dispatcher that no longer receives messages checks all lanes before it ends.
            let _ = messages.send(Message::Lane(self.lane_id(number)));
        }
        self.keep(lane, (number, place), messages, (1, bytes), tracking, reservation)
    }

    /// As [`push`](Self::push) for the first of several rows and those that follow it into the same batch: they are copied
    /// column by column. Returns how many these are, and the receipt of the first one. The values were checked before.
    pub(crate) fn push_rows(
        &self,
        group: &Arc<Group>,
        messages: &mpsc::UnboundedSender<Message>,
        rows: Rows<'_>,
        tracking: &Tracking,
        reservation: &mut Reservation<'_>,
    ) -> Result<(usize, Option<Receipt>), NotPushed> {
        let key_hash = |row: usize| rows.row(row).key_hash();
        let (number, mut guard) = self.lock_for(|| key_hash(0));
        self.check_open(group)?;
        let lane = &mut *guard;
        let place = lane.open_batch_of(group);
        // A key that may be in another open batch is looked for row by row.
        let is_other = |(other, open): (usize, &OpenBatch)| other != place && open.len > 0;
        let may_wait = self.is_serial() && lane.open.iter().enumerate().any(is_other);
        let fitting = if may_wait {
            1
        } else {
            let rows = rows.slice(0..self.fitting(&lane.open[place], rows));
            // Neighbours are often in one lane.
            let is_here = |row: &usize| !self.is_serial() || self.lane_of(|| key_hash(*row)) == number;
            (0..rows.len()).skip(1).take_while(is_here).count() + 1
        };
        let rows = rows.slice(0..fitting);
        let bytes = rows.bytes();
        lane.open[place].write_rows(rows, &self.intake.headroom);
        if may_wait && lane.make_way(self.order, place, &self.sealed_by(number)) {
            let _ = messages.send(Message::Lane(self.lane_id(number)));
        }
        let receipt = self.keep(lane, (number, place), messages, (fitting, bytes), tracking, reservation)?;
        Ok((fitting, receipt))
    }

    /// Whether rows of the group are accepted. Call it under the lock of the lane.
    fn check_open(&self, group: &Group) -> Result<(), NotPushed> {
        if self.intake.closed.load(Atomic::SeqCst) {
            return Err(NotPushed::Closed);
        }
        if group.is_retired() { Err(NotPushed::Retired) } else { Ok(()) }
    }

    /// How many of the rows an open batch takes until it is full, at least one.
    fn fitting(&self, open: &OpenBatch, rows: Rows<'_>) -> usize {
        let most = self.flush_size.saturating_sub(open.len).clamp(1, rows.len());
        let is_full = |count: usize| open.bytes + rows.slice(0..count).bytes() >= self.intake.flush_bytes;
        if !is_full(most) {
            return most;
        }
        let (mut low, mut high) = (1, most);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_full(middle) { high = middle } else { low = middle + 1 }
        }
        low
    }

    /// Counts rows that were written into the open batch at `place` of a lane, and seals the batch when it is full.
    #[inline]
    fn keep(
        &self,
        lane: &mut Lane,
        (number, place): (usize, usize),
        messages: &mpsc::UnboundedSender<Message>,
        (rows, bytes): (usize, usize),
        tracking: &Tracking,
        reservation: &mut Reservation<'_>,
    ) -> Result<Option<Receipt>, NotPushed> {
        let id = self.lane_id(number);
        let open = &mut lane.open[place];
        let fills = open.len + rows >= self.flush_size;
        let reason = if fills { FlushReason::Rows } else { FlushReason::Bytes };
        let full = fills || open.bytes + bytes >= self.intake.flush_bytes;
        if open.len == 0 {
            open.opened(Instant::now());
            if !full && messages.send(Message::Lane(id)).is_err() {
                open.not_opened();
                return Err(NotPushed::Closed);
            }
        }
        reservation.keep_rows(rows, bytes);
        let receipt = open.keep_rows(rows, bytes, tracking);
        lane.accepted += rows as u64;
        if full {
            lane.seal(place, &self.sealed_by(number), reason);
            let _ = messages.send(Message::Lane(id));
        }
        Ok(receipt)
    }

    fn lane_id(&self, lane: usize) -> LaneId {
        LaneId { table: self.number, lane }
    }

    pub(crate) fn status(&self, lane: LaneId) -> LaneStatus {
        self.lock(lane.lane).status()
    }

    /// Seals the open batches of a lane that were opened at `until` at the latest, or all of them.
    pub(crate) fn seal(&self, lane: LaneId, until: Option<Instant>, reason: FlushReason) -> LaneStatus {
        let mut guard = self.lock(lane.lane);
        guard.seal_until(until, &self.sealed_by(lane.lane), reason);
        guard.status()
    }

    /// Takes the next batch of a lane, see [`Lane::pull`].
    pub(crate) fn pull(&self, lane: LaneId, limit: PullLimit, may: &dyn Fn(GroupId) -> bool) -> (Pull, LaneStatus) {
        let mut guard = self.lock(lane.lane);
        let pull = guard.pull(self.order, limit, &self.sealed_by(lane.lane), may);
        let status = guard.status();
        (pull, status)
    }

    /// Takes what follows a returned batch, see [`Lane::pull_more`].
    pub(crate) fn pull_more(&self, lane: LaneId, job: &Job, limit: PullLimit) -> (Vec<Job>, LaneStatus) {
        let mut guard = self.lock(lane.lane);
        let others = guard.pull_more(self.order, job, limit, &self.sealed_by(lane.lane));
        let status = guard.status();
        (others, status)
    }

    /// Takes sealed batches of a lane.
    pub(crate) fn take_sealed(&self, lane: LaneId, is_wanted: &dyn Fn(&Job) -> bool) -> (Vec<Job>, LaneStatus) {
        let mut guard = self.lock(lane.lane);
        let taken = guard.take_sealed(is_wanted);
        let status = guard.status();
        (taken, status)
    }

    /// Takes the oldest sealed batch of a lane.
    pub(crate) fn take_oldest(&self, lane: LaneId) -> (Option<Job>, LaneStatus) {
        let mut guard = self.lock(lane.lane);
        let taken = guard.take_oldest();
        let status = guard.status();
        (taken, status)
    }

    /// The number of the oldest sealed batch of a lane.
    pub(crate) fn oldest_number(&self, lane: LaneId) -> Option<u64> {
        self.lock(lane.lane).sealed().front().map(|job| job.number)
    }

    /// Rows that wait in a lane, sealed or not.
    pub(crate) fn waiting_rows(&self, lane: LaneId) -> usize {
        self.lock(lane.lane).rows()
    }

    /// Whether any lane has rows of a group.
    pub(crate) fn has_rows_of(&self, group: GroupId) -> bool {
        (0..self.lanes.len()).any(|lane| {
            let lane = self.lock(lane);
            lane.sealed().iter().any(|job| job.group == group)
                || lane.open.iter().any(|open| open.group.id == group && open.len > 0)
        })
    }

    /// Removes a group if it holds no rows and has sealed no batch since `sealed`. Returns the number of batches that
    /// it has sealed, or `None` if it was removed.
    pub(crate) fn retire_if_idle(&self, group: &Arc<Group>, sealed: Option<u64>) -> Option<u64> {
        let mut lanes: Vec<_> = (0..self.lanes.len()).map(|lane| self.lock(lane)).collect();
        let is_of = |open: &&OpenBatch| Arc::ptr_eq(&open.group, group);
        let is_empty = lanes.iter().flat_map(|lane| lane.open.iter().filter(is_of)).all(|open| open.len == 0);
        if !is_empty || sealed != Some(group.sealed()) || !group.has_no_batches() {
            return Some(group.sealed());
        }
        group.retire();
        lanes.iter_mut().for_each(|lane| lane.open.retain(|open| !Arc::ptr_eq(&open.group, group)));
        None
    }

    /// The lane of a row, locked. Without an order it is the first lane that is not locked, so that there is only one
    /// open batch unless submitters run at the same time.
    fn lock_for(&self, key_hash: impl FnOnce() -> u64) -> (usize, MutexGuard<'_, Lane>) {
        if self.is_serial() {
            let lane = self.lane_of(key_hash);
            return (lane, self.lock(lane));
        }
        // A thread keeps its lane for a batch, so that threads that contended once do not contend for the first lane
        // with every row.
        let first = SPARE_LANE.get();
        for number in (first..self.lanes.len()).chain(0..first.min(self.lanes.len())) {
            match self.lanes[number].try_lock() {
                Ok(guard) => {
                    // Before it opens another batch it tries the first lane again: threads that no longer contend fill
                    // one batch together, and no single row stays in another lane.
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

    /// The lane of a key, if the table has an order.
    #[inline]
    fn lane_of(&self, key_hash: impl FnOnce() -> u64) -> usize {
        match self.lanes.len() {
            1 => 0,
            lanes => (key_hash() % lanes as u64) as usize,
        }
    }

    fn sealed_by(&self, lane: usize) -> SealedBy<'_> {
        SealedBy {
            lane: self.lane_id(lane),
            is_ordered: self.is_serial(),
            share: &self.share,
            limit: &self.limit,
            headroom: &self.intake.headroom,
            pipeline: &self.intake.pipeline,
        }
    }

    fn lock(&self, lane: usize) -> MutexGuard<'_, Lane> {
        // A panic under the lock is rolled back, so the data behind a poisoned lock is consistent.
        self.lanes[lane].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("name", &self.name).finish_non_exhaustive()
    }
}
