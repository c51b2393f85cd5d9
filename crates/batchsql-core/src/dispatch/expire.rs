//! Owns the end of rows that have waited long enough: for a connection, for their table, or behind other rows that
//! failed.
//! Must not know rows or databases.
//!
//! A row ends only after an attempt that started when its time was over, so that each row gets a last try. It may be
//! the attempt of another batch: a server that refuses one batch of a lane also refuses the batches behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::dispatch::dispatcher::Dispatcher;
use crate::dispatch::state::State;
use crate::error::{ErrorClass, SinkError};
use crate::outcome::outcomes::{FailureKind, OutcomeCounts};
use crate::write::failure_log::FailureLog;
use crate::write::ids::{GroupId, LaneId};
use crate::write::job::Job;
use crate::write::sink::Sink;

/// How often rows that wait for a fixed time are checked.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

impl<S: Sink> Dispatcher<S> {
    /// Ends the rows that have waited long enough for a connection.
    pub(crate) fn expire_unconnected(&self, state: &mut State<S::Conn>) {
        let Some(gate) = state.gate.take() else { return };
        let is_over = |job: &Job| {
            let since = job.progress.retries.as_ref().map(|(_, since)| *since);
            gate.is_over(job.opened_at, since, job.settings().retry_for, &self.limits)
        };
        let jobs = self.take_waiting(state, None, &is_over);
        end(jobs, gate.ending(), &gate.error);
        self.expire_old(state, None, &gate.error, gate.tried_at(), &|_| true);
        state.gate = Some(gate);
        state.schedule.resume_unused();
    }

    /// Ends the rows of a parked group that have waited long enough: all of them, or only those of the batch that was
    /// tried if the rows themselves may be at fault. Then the next batch is tried at once.
    pub(crate) fn expire_parked(&self, state: &mut State<S::Conn>, group: GroupId, tried: u64, now: Instant) {
        let Some((_, park)) = state.schedule.parks().find(|(parked, _)| *parked == group) else { return };
        let (table, error, is_of_rows) = (park.table.number(), park.error.clone(), park.is_of_rows);
        let (over_before, tried_at) = (park.over_before(self.limits.park_for), park.tried_at());
        self.expire_parked_old(state, group, tried, tried_at, now);
        let Some(over_before) = over_before else { return };
        let is_over = |job: &Job| {
            let is_meant = job.lane.table == table && job.group == group && (!is_of_rows || job.number == tried);
            is_meant && job.opened_at <= over_before
        };
        let jobs = self.take_waiting(state, None, &is_over);
        // One row was refused; the others were not tried alone.
        let error = match error.class() {
            ErrorClass::Row => error.not_looked_at_alone(),
            _ if is_of_rows => error.of_batch(),
            _ => error,
        };
        if is_of_rows && !jobs.is_empty() {
            state.schedule.probe_now(group, now);
        }
        end(jobs, FailureKind::Rejected, &error);
        state.schedule.resume_unused();
    }

    /// Ends the rows of a lane whose time is over, like that of the batch before them.
    pub(crate) fn expire_lane(&self, state: &mut State<S::Conn>, lane: LaneId, error: &SinkError, tried_at: Instant) {
        let has_failed_before = state.schedule.note_expired(lane);
        if let Some(fails_since) = state.schedule.fails_since(lane) {
            let is_over =
                |job: &Job| job.lane == lane && fails_since.max(job.opened_at) + job.settings().retry_for <= tried_at;
            let jobs = self.take_waiting(state, Some(lane), &is_over);
            end(jobs, FailureKind::Expired, error);
        }
        if has_failed_before {
            self.expire_old(state, Some(lane), error, tried_at, &|job| job.lane == lane);
        }
    }

    /// Ends the rows of a parked group that were too old when a try that has failed started. If the rows that were tried
    /// may be at fault, only those.
    fn expire_parked_old(
        &self,
        state: &mut State<S::Conn>,
        group: GroupId,
        tried: u64,
        tried_at: Instant,
        now: Instant,
    ) {
        let Some((_, park)) = state.schedule.parks().find(|(parked, _)| *parked == group) else { return };
        let (error, is_of_batch) = (park.error.clone(), park.is_of_rows || park.error.class() == ErrorClass::Row);
        let is_meant = |job: &Job| job.group == group && (!is_of_batch || job.number == tried);
        if self.expire_old(state, None, &error, tried_at, &is_meant) && is_of_batch {
            state.schedule.probe_now(group, now);
        }
        state.schedule.resume_unused();
    }

    /// Ends waiting rows that were older than `max_age` at `tried_at`; true if there were any.
    fn expire_old(
        &self,
        state: &mut State<S::Conn>,
        only: Option<LaneId>,
        error: &SinkError,
        tried_at: Instant,
        is_meant: &dyn Fn(&Job) -> bool,
    ) -> bool {
        if !self.limits.has_max_age {
            return false;
        }
        let jobs = self.take_waiting(state, only, &|job| job.is_too_old(tried_at) && is_meant(job));
        let has_any = !jobs.is_empty();
        end(jobs, FailureKind::Expired, error);
        has_any
    }

    /// The same for a lane that waits until an abandoned write can no longer take effect.
    pub(crate) fn expire_fenced(&self, state: &mut State<S::Conn>, lane: LaneId, tried_at: Instant) {
        let text = "the session of an abandoned write could not be ended; rows with the same keys must not \
                    overtake it";
        let error = SinkError::new(ErrorClass::Transient, text);
        self.expire_lane(state, lane, &error, tried_at);
    }

    /// The same for lanes that wait for a fixed time, where no attempt is possible.
    pub(crate) fn expire_timed(&self, state: &mut State<S::Conn>, now: Instant) {
        if state.next_expiry.is_some_and(|next| now < next) {
            return;
        }
        state.next_expiry = Some(now + EXPIRY_INTERVAL);
        for lane in state.fences.timed_lanes() {
            if self.limits.has_max_age || state.schedule.fails_until(lane).is_some_and(|until| until <= now) {
                self.expire_fenced(state, lane, now);
            }
        }
    }

    /// When the rows of such lanes are checked next.
    pub(crate) fn next_timed_expiry(&self, state: &State<S::Conn>, now: Instant) -> Option<Instant> {
        let waits = |lane: &LaneId| state.schedule.has_waiting(*lane);
        let lanes = state.fences.timed_lanes().into_iter().filter(waits);
        let until = |lane| if self.limits.has_max_age { Some(now) } else { state.schedule.fails_until(lane) };
        let first = lanes.filter_map(until).min()?;
        // Rows that came later have more time.
        Some(first.max(now + EXPIRY_INTERVAL))
    }

    /// Takes waiting batches: those that were returned, and those that never left their lane.
    fn take_waiting(
        &self,
        state: &mut State<S::Conn>,
        only: Option<LaneId>,
        is_wanted: &dyn Fn(&Job) -> bool,
    ) -> Vec<Job> {
        let mut jobs = state.schedule.take_held(only, is_wanted);
        for (table, lane) in state.schedule.lanes_with_batches(only) {
            let (taken, status) = table.take_sealed(lane, is_wanted);
            if taken.is_empty() {
                continue;
            }
            state.schedule.note_taken(&table, lane, status);
            jobs.extend(taken);
        }
        jobs.sort_unstable_by_key(|job| job.number);
        jobs
    }
}

/// Ends batches together, with one log line for each table.
fn end(jobs: Vec<Job>, kind: FailureKind, error: &SinkError) {
    let mut tables: BTreeMap<String, OutcomeCounts> = BTreeMap::new();
    for mut job in jobs {
        // A batch of which rows failed before has its own line, with the reasons.
        let has_own_line = job.has_failed_rows();
        job.failed_rest(kind, Some(error));
        if !has_own_line {
            job.progress.failure_log.suppress();
            tables.entry(job.batch.schema().table_display().to_owned()).or_default().merge(&job.counts());
        }
    }
    let mut log = FailureLog::default();
    log.note(error);
    tables.iter().for_each(|(table, counts)| log.write(table, counts));
}
