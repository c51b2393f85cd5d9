//! Owns a sealed batch until its end: whatever happens to it, each of its rows ends in one outcome.
//! Must not know who carries it or how it is written.
//!
//! A batch is written in rounds, see [`round`](crate::write::round).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use crate::budget::share::ShareHold;
use crate::config_table::TableSettings;
use crate::error::{ErrorClass, SinkError};
use crate::model::batch::{Batch, Rows};
use crate::model::keys::{self, Coalescing};
use crate::model::value::Value;
use crate::outcome::outcomes::{Outcome, OutcomeCounts};
use crate::outcome::receipt::Completion;
use crate::outcome::tracking::Submitters;
use crate::pipeline_events::{BatchInfo, BatchSealed, FlushReason};
use crate::write::attempt::Attempt;
use crate::write::batch_limit::BatchLimit;
use crate::write::commits::Commits;
use crate::write::context::PipelineContext;
use crate::write::doubt::Doubt;
use crate::write::failure_log::FailureLog;
use crate::write::ids::{GroupId, LaneId};
use crate::write::isolate::Search;
use crate::write::references::References;
use crate::write::repeated::Repeated;
use crate::write::retry::RetrySchedule;
use crate::write::round::Round;

/// A batch that must end. Dropping it ends the rows that have no outcome yet: as `Unknown` while they
/// are being written (a panic, a deadline), as `Purged` otherwise.
pub(crate) struct Job {
    /// Lower than that of every batch that was sealed later.
    pub(crate) number: u64,
    pub(crate) lane: LaneId,
    pub(crate) group: GroupId,
    /// Whether rows of its lane keep their order.
    pub(crate) is_ordered: bool,
    pub(crate) batch: Arc<Batch>,
    /// When its oldest row was accepted; if it took over other batches after a try, when the newest of them was opened.
    pub(crate) opened_at: Instant,
    /// When its oldest row was accepted.
    pub(crate) first_opened_at: Instant,
    /// When the last of its rows is older than `max_age`.
    pub(crate) expires_at: Option<Instant>,
    pub(crate) reason: FlushReason,
    pub(crate) limit: Arc<BatchLimit>,
    pub(crate) pipeline: Arc<PipelineContext>,
    pub(crate) progress: Progress,
    pub(super) context: Option<Arc<str>>,
    /// The completions of its rows, from the first row to the last.
    pub(super) parts: Vec<Part>,
    pub(super) submitters: Submitters,
    pub(super) share: ShareHold,
    /// Of its group. Keeps the group from being removed.
    pub(crate) commits: Arc<Commits>,
    /// It was merged into another batch, and holds nothing.
    pub(super) is_absorbed: bool,
}

/// Rows of a batch that were sealed together.
pub(super) struct Part {
    pub(super) rows: usize,
    pub(super) completion: Option<Arc<Completion>>,
}

/// What a batch is made of when it is sealed.
pub(crate) struct Sealed {
    pub(crate) lane: LaneId,
    pub(crate) group: GroupId,
    pub(crate) commits: Arc<Commits>,
    pub(crate) is_ordered: bool,
    pub(crate) batch: Batch,
    pub(crate) opened_at: Instant,
    pub(crate) reason: FlushReason,
    pub(crate) limit: Arc<BatchLimit>,
    pub(crate) completion: Option<Arc<Completion>>,
    pub(crate) submitters: Submitters,
    pub(crate) share: ShareHold,
}

/// The progress of a batch.
#[derive(Default)]
pub(crate) struct Progress {
    /// Times that rows of the batch were sent.
    pub(crate) attempts: u32,
    /// The rows being written at this moment, and since when.
    pub(crate) writing: Option<(Range<usize>, Instant, Attempt)>,
    /// When the last try of rows of it began.
    pub(crate) tried_at: Option<Instant>,
    /// The delays of this batch, and since when it is retried.
    pub(crate) retries: Option<(RetrySchedule, Instant)>,
    /// Since when batches before it are retried, in the same lane.
    pub(crate) fails_since: Option<Instant>,
    /// The error with which rows of it were given up because `retry_for` was over.
    pub(crate) expired: Option<SinkError>,
    pub(crate) last_error: Option<SinkError>,
    /// Attempts that were abandoned because the connection was dead.
    pub(crate) dead_links: u32,
    /// Times that all of its rows were sent.
    pub(super) attempts_of_all: u32,
    /// For each row the times that it was sent with only some of the others; empty until then.
    pub(super) attempts_of_some: Vec<u32>,
    pub(crate) failure_log: FailureLog,
    /// Whether rows were written since the job was last resumed.
    pub(crate) has_written: bool,
    /// The last error for which bad rows were searched.
    pub(crate) refusal: Option<SinkError>,
    /// An error that the table or one row may have caused.
    pub(crate) doubt: Option<Doubt>,
    /// So many rows were refused that an error of a row may be the table's too.
    pub(crate) is_past_budget: bool,
    /// Rows that a foreign key refuses.
    pub(crate) references: References,
    /// A transient error that may be one row's.
    pub(crate) repeated: Option<Repeated>,
    /// Whether the table was checked again since the job was last resumed.
    pub(crate) has_looked_again: bool,
    pub(super) is_reported: bool,
    /// No part of it may be written without the rest.
    pub(crate) is_atomic: bool,
    /// It is dropped for newer rows, as configured.
    pub(crate) frees_capacity: bool,
    /// What is left of the round; `None` before the first.
    pub(crate) search: Option<Search>,
    /// `None` while all rows are written as they are.
    pub(super) round: Option<Round>,
    pub(super) counts: OutcomeCounts,
    /// Rejected rows by the class of their error, in the order of [`ErrorClass::ALL`].
    pub(super) rejected: [u64; ErrorClass::ALL.len()],
    /// One entry per row; empty while nothing is decided, and for good when every row was written.
    pub(super) ends: Vec<End>,
    /// What the database returned for rows of the batch.
    pub(super) returned: HashMap<usize, Arc<[Value]>>,
}

/// How one row ended.
#[derive(Clone)]
pub(super) enum End {
    Open,
    Known(Outcome),
    /// It failed, and has no receipt or consumer: it is only counted.
    Counted,
}

impl End {
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Known(outcome) => Some(outcome),
            Self::Open | Self::Counted => None,
        }
    }
}

impl Job {
    pub(crate) fn new(sealed: Sealed, pipeline: Arc<PipelineContext>) -> Self {
        let Sealed { lane, group, commits, is_ordered, batch, opened_at, reason, limit, completion, submitters, share } =
            sealed;
        Self {
            number: pipeline.outstanding.begin(opened_at),
            lane,
            group,
            is_ordered,
            parts: vec![Part { rows: batch.len(), completion }],
            batch: Arc::new(batch),
            opened_at,
            first_opened_at: opened_at,
            // Its last row was accepted at this time at the latest.
            expires_at: limit.settings.max_age.map(|max_age| Instant::now() + max_age),
            reason,
            limit,
            context: pipeline.reporter.call(|reporter| reporter.context()),
            pipeline,
            progress: Progress::default(),
            submitters,
            share,
            commits,
            is_absorbed: false,
        }
    }

    /// The settings of its table.
    pub(crate) fn settings(&self) -> &TableSettings {
        &self.limit.settings
    }

    /// Whether all of its rows were older than `max_age` at a time.
    pub(crate) fn is_too_old(&self, at: Instant) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= at)
    }

    /// When a batch that was tried should have its last try: the end of `retry_for` or of `max_age`.
    pub(crate) fn last_try_at(&self) -> Option<Instant> {
        let retried = self.progress.retries.as_ref().and_then(|(retries, since)| since.checked_add(retries.budget()));
        retried.into_iter().chain(self.expires_at).min()
    }

    /// Whether another batch has rows of the same group and context.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.group == other.group && self.context == other.context
    }

    /// Whether none of its rows has an outcome or may be in the database.
    pub(crate) fn is_untouched(&self) -> bool {
        self.progress.counts.total() == 0 && !self.has_any_maybe_written()
    }

    /// Whether any of its rows may be in the database after an attempt without a reply.
    pub(crate) fn has_any_maybe_written(&self) -> bool {
        self.progress.round.as_ref().is_some_and(Round::has_maybe_written)
    }

    /// Discards the round, so that a new one begins with the rows that have no outcome and those that are taken over.
    pub(crate) fn begin_anew(&mut self) {
        let Progress { attempts_of_all, attempts_of_some, .. } = &mut self.progress;
        attempts_of_some.resize(self.batch.len(), 0);
        attempts_of_some.iter_mut().for_each(|attempts| *attempts += *attempts_of_all);
        *attempts_of_all = 0;
        self.progress.search = None;
        self.progress.round = None;
        self.progress.references = References::default();
    }

    /// What is left of the round that was begun.
    pub(crate) fn search(&mut self) -> &mut Search {
        self.progress.search.as_mut().expect("a job is begun before it is run")
    }

    /// Takes over the rows of batches that were sealed after this one, in their order. None of those was begun.
    pub(crate) fn absorb(&mut self, others: Vec<Self>) {
        if others.is_empty() {
            return;
        }
        let mut batches = Vec::with_capacity(others.len());
        for mut other in others {
            self.parts.append(&mut other.parts);
            self.submitters.absorb(&other.submitters);
            self.share.absorb(&mut other.share);
            self.first_opened_at = self.first_opened_at.min(other.first_opened_at);
            self.expires_at = self.expires_at.max(other.expires_at);
            self.opened_at = match self.progress.attempts {
                0 => self.opened_at.min(other.opened_at),
                // The others must have their whole time.
                _ => self.opened_at.max(other.opened_at),
            };
            other.is_absorbed = true;
            batches.push(Arc::clone(&other.batch));
            self.pipeline.outstanding.end(other.number);
        }
        match Arc::get_mut(&mut self.batch) {
            Some(batch) => batch.append(&batches),
            // No sink has seen it, or none keeps a copy.
            None => unreachable!("a batch that takes over others has one owner"),
        }
        if !self.progress.ends.is_empty() {
            self.progress.ends.resize(self.batch.len(), End::Open);
        }
    }

    /// Begins the first round, or one anew.
    pub(crate) fn begin(&mut self, coalescing: Coalescing, sorts: bool, budget: usize, max_rows: usize) {
        let is_arranged = coalescing != Coalescing::Off || sorts;
        let arrange = |rows: Rows<'_>| if is_arranged { keys::arrange(rows, coalescing, sorts) } else { None };
        let open = (self.progress.counts.total() > 0).then(|| self.open_numbers());
        match &open {
            None => {
                let arranged = arrange(Rows::all(&self.batch));
                self.progress.round = arranged.map(|arranged| Round::arranged(arranged, sorts));
            }
            Some(open) => {
                let arranged = arrange(Rows::all(&Arc::new(self.batch.gather(open))));
                self.progress.round = Some(Round::of_open(open, arranged, sorts, self.batch.len()));
            }
        }
        let rows = self.rows().len();
        self.limit.coalesced(self.lane.lane, open.map_or(self.batch.len(), |open| open.len()), rows);
        let mut search = Search::new(rows, budget);
        search.limit_rows(max_rows);
        self.progress.search = Some(search);
    }

    /// Begins a round with the rows whose successors were rejected and with those that are unfinished; false if there
    /// are none.
    pub(crate) fn begin_next_round(&mut self) -> bool {
        self.end_waiting_for_others();
        let Progress { round, search, .. } = &mut self.progress;
        let Some(rows) = round.as_mut().and_then(|round| round.begin_next(&self.batch)) else { return false };
        search.as_mut().expect("a round was begun").next_round(rows);
        true
    }

    /// The rows of the round.
    pub(crate) fn rows(&mut self) -> Rows<'_> {
        match &mut self.progress.round {
            Some(round) => round.rows(&self.batch),
            None => Rows::all(&self.batch),
        }
    }

    /// Drops the copy of its rows while it waits.
    pub(crate) fn release_copy(&mut self) {
        self.progress.round.iter_mut().for_each(Round::release_copy);
    }

    /// Its rows that have an outcome.
    pub(crate) fn counts(&self) -> OutcomeCounts {
        self.progress.counts
    }

    /// The callers that submitted its tracked rows.
    pub(crate) fn submitters(&self) -> &Submitters {
        &self.submitters
    }

    /// Whether rows ended without being in the database.
    pub(crate) fn has_failed_rows(&self) -> bool {
        self.progress.counts.failed() > 0
    }

    /// Reports the batch to the reporter, once, before anything else of it is reported.
    pub(crate) fn report_sealed(&mut self) {
        if !std::mem::replace(&mut self.progress.is_reported, true) {
            let sealed = BatchSealed { reason: self.reason };
            self.pipeline.reporter.call(|reporter| reporter.batch_sealed(&self.info(), &sealed));
        }
    }

    /// Identifies the batch to the reporter.
    pub(crate) fn info(&self) -> BatchInfo<'_> {
        BatchInfo {
            table: self.batch.schema().table_display(),
            context: self.context.as_ref(),
            rows: self.batch.len(),
            bytes: self.batch.bytes(),
        }
    }
}
