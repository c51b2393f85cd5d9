//! Owns what is done for submitters that wait for capacity: open batches are written early, the oldest are dropped.
//! Must not know rows or databases.

use std::time::Duration;

use tokio::time::Instant;

use crate::budget::capacity::Wanted;
use crate::config_policies::WhenFull;
use crate::dispatch::dispatcher::Dispatcher;
use crate::dispatch::state::State;
use crate::error::{ErrorClass, SinkError};
use crate::pipeline_events::FlushReason;
use crate::write::sink::Sink;

/// How long a submitter that got its capacity may take to wake up.
const WAKING_UP: Duration = Duration::from_millis(1);

impl<S: Sink> Dispatcher<S> {
    /// If submitters wait and no batch in flight will release capacity, the open batches hold it. Returns when to check
    /// again.
    pub(crate) fn flush_under_pressure(&mut self, state: &mut State<S::Conn>, now: Instant) -> Option<Instant> {
        if self.when_full == WhenFull::DropOldest {
            self.free_capacity(state);
        }
        self.warn_of_untaken_letters();
        // Order matters: mark the pipeline idle first, then check for waiters. A waiter counts itself first, then
        // checks whether the pipeline is busy. So one of the two sees the other.
        self.activity.set_busy(!state.is_idle());
        let idle = state.is_idle() && self.messages.is_empty();
        let is_wanted = || matches!(self.pipeline.ledger.budget.wanted(), Some(Wanted::Capacity { .. }));
        if !(idle && is_wanted()) {
            state.waited_for_since = None;
            return None;
        }
        // Submitters that got capacity and are not awake yet are about to fill a batch.
        let since = *state.waited_for_since.get_or_insert(now);
        if self.pipeline.ledger.budget.is_waking() && now < since + WAKING_UP {
            return Some(since + WAKING_UP);
        }
        state.waited_for_since = None;
        self.seal_all(state, FlushReason::Pressure);
        self.start_ready(state, now);
        self.activity.set_busy(!state.is_idle());
        None
    }

    /// Logs once that submitters wait for a consumer of dead letters, and not for the database.
    fn warn_of_untaken_letters(&mut self) {
        if self.warned.of_letters {
            return;
        }
        let budget = &self.pipeline.ledger.budget;
        let ((used, _), (held, _)) = (budget.used(), budget.held());
        if held > 0 && held == used && budget.wanted().is_some() {
            self.warned.of_letters = true;
            tracing::warn!(rows = held, "the buffer is full of failed rows that no dead-letter consumer has received");
        }
    }

    /// Drops the oldest batches that are not being written, as far as that frees capacity for waiters.
    fn free_capacity(&mut self, state: &mut State<S::Conn>) {
        while let Some(wanted) = self.pipeline.ledger.budget.wanted() {
            // Failed rows release their capacity when their consumers have received them.
            let (held_rows, held_bytes) = self.pipeline.ledger.budget.held();
            let (only, rows, bytes) = match wanted {
                Wanted::Capacity { rows, bytes } => {
                    (None, rows.saturating_sub(held_rows), bytes.saturating_sub(held_bytes))
                }
                Wanted::Share { table } => (Some(table), 1, 1),
            };
            if (rows == 0 && bytes == 0) || !self.can_drop(state, rows, bytes) {
                break;
            }
            if !self.drop_oldest(state, only) {
                break;
            }
        }
        state.schedule.resume_unused();
        self.answer_flushes(state);
    }

    /// Whether rows that are not being written hold this much capacity.
    fn can_drop(&self, state: &State<S::Conn>, rows: usize, bytes: usize) -> bool {
        let (used_rows, used_bytes) = self.pipeline.ledger.budget.used();
        let (held_rows, held_bytes) = self.pipeline.ledger.budget.held();
        let (running_rows, running_bytes) = state.schedule.running_capacity();
        used_rows.saturating_sub(held_rows + running_rows) >= rows
            && used_bytes.saturating_sub(held_bytes + running_bytes) >= bytes
    }

    /// Drops one batch; false when all that is left is being written.
    fn drop_oldest(&mut self, state: &mut State<S::Conn>, only: Option<usize>) -> bool {
        let is_wanted = |table: usize| only.is_none_or(|wanted| wanted == table);
        let lanes = state.schedule.lanes_with_batches(None).into_iter().filter(|(table, _)| is_wanted(table.number()));
        let in_lanes = lanes.filter_map(|(table, lane)| Some((table.oldest_number(lane)?, table, lane)));
        let in_lane = in_lanes.min_by_key(|(number, ..)| *number);
        let came_back = state.schedule.oldest(only);
        let job = match (in_lane, came_back) {
            (Some((number, table, lane)), came_back) if came_back.is_none_or(|back| number < back) => {
                let (job, status) = table.take_oldest(lane);
                state.schedule.note_taken(&table, lane, status);
                job
            }
            (_, Some(back)) => state.schedule.take(back),
            // What is left is open, or being written.
            _ => {
                let before = self.pipeline.outstanding.next();
                let tables = self.groups.tables().into_iter().filter(|table| is_wanted(table.number()));
                tables.for_each(|table| self.seal_table(state, &table, FlushReason::Pressure));
                return self.pipeline.outstanding.next() > before;
            }
        };
        let Some(mut job) = job else { return true };
        if !std::mem::replace(&mut self.warned.of_dropping, true) {
            let table = job.batch.schema().table_display();
            tracing::warn!(table, "the buffer is full: the oldest batches are dropped, as configured");
        }
        let why = "the buffer was full and its oldest batch was dropped (WhenFull::DropOldest)";
        job.progress.frees_capacity = true;
        job.progress.last_error = Some(SinkError::new(ErrorClass::Transient, why));
        true
    }
}
