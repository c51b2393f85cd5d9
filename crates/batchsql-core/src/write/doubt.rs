//! Owns what a batch knows of an error that may be its table's or one row's, and when such a row is rejected.
//! Must not know databases or how rows are written.
//!
//! A code that speaks of the table, of a right, or that nobody knows may come from one value: of an input function, of a
//! trigger. Rules (an error of `prepare` is not meant, it is the table's):
//!
//! - A row is rejected when it is refused alone, and a row of its group was committed after it had been refused before.
//!   One commit is good for few rejections: the table may break while bad rows are searched.
//! - Without such a commit up to [`SAMPLES`] rows are tried alone, none before an earlier row with its key. If one is committed, the rest is searched as for
//!   an error of a row. If all are refused, the batch waits once, for batches of other lanes to be committed; then its
//!   table is parked, and probed with single rows.

use std::ops::Range;
use std::sync::Arc;

use crate::error::SinkError;
use crate::model::keys;
use crate::outcome::outcomes::FailureKind;
use crate::write::job::Job;
use crate::write::sample::{Candidates, SAMPLES};
use crate::write::sink::Written;

/// An error of a batch that may be its table's.
#[derive(Debug)]
pub(crate) struct Doubt {
    /// Commits of the group when the error was seen first.
    since: u64,
    /// Commits of the group when the credit was given.
    credited_at: u64,
    /// Rows that may be rejected before another commit.
    credit: usize,
    /// Whether rows were refused since the last commit of the batch.
    is_open: bool,
    /// The rows that are being tried alone and were refused, with their errors.
    refusals: Vec<(usize, SinkError)>,
    /// Whether the batch has waited for others.
    has_waited: bool,
    /// Times that it was taken up as a probe.
    probes: usize,
}

impl Doubt {
    fn new(commits: u64) -> Self {
        Self {
            since: commits,
            credited_at: commits,
            credit: 0,
            is_open: true,
            refusals: Vec::new(),
            has_waited: false,
            probes: 0,
        }
    }

    /// Whether the rows are at fault when they are refused, where `seen` writes were committed before they were sent.
    fn is_proven(&mut self, seen: u64) -> bool {
        if seen > self.credited_at {
            (self.credited_at, self.credit) = (seen, SAMPLES);
        }
        seen > self.since && self.credit > 0
    }
}

impl Job {
    /// A range of the round was refused, by an error that may be the table's; `seen` writes of the group were committed
    /// before it was sent. True: rows of the range are at fault. False: rows are tried alone next.
    pub(crate) fn doubt(&mut self, range: Range<usize>, seen: u64, error: &SinkError, in_order: bool) -> bool {
        let commits = self.commits.count();
        self.progress.refusal = Some(error.clone());
        let doubt = self.progress.doubt.get_or_insert_with(|| Doubt::new(commits));
        if doubt.is_proven(seen) {
            return true;
        }
        doubt.is_open = true;
        if range.len() == 1 {
            doubt.refusals.push((range.start, error.clone()));
        }
        if self.search().is_sampling() {
            self.search().sample_refused(range.start);
        } else {
            self.sample(Some(range), in_order, Candidates::choose);
        }
        false
    }

    /// The batch is taken up again. While nobody knows whose the error is, one row is tried first.
    pub(crate) fn resume_in_doubt(&mut self, in_order: bool) {
        let commits = self.commits.count();
        let Some(doubt) = &mut self.progress.doubt else { return };
        let is_settled = !doubt.is_open || doubt.is_proven(commits);
        let probe = doubt.probes;
        if !is_settled && !self.search().is_sampling() {
            self.sample(None, in_order, |candidates| candidates.choose_probe(probe));
        }
    }

    /// Enters what `written` means for such errors, once the rows of the range have their outcomes.
    pub(crate) fn committed(&mut self, range: &Range<usize>, written: &Written, in_order: bool) {
        let (ignored, rejected) = (written.ignored.len(), written.rejected.len());
        if range.len() <= ignored + rejected + written.unfinished.len() {
            return;
        }
        self.commits.add();
        let Some(doubt) = &mut self.progress.doubt else { return };
        doubt.is_open = false;
        let refusals = std::mem::take(&mut doubt.refusals);
        let Some(mut search) = self.progress.search.take() else { return };
        let rows = self.rows();
        let is_overtaken = |row| in_order || keys::have_same_key(rows, row, range.start);
        let overtaken = search.sample_committed(is_overtaken);
        self.progress.search = Some(search);
        for (row, error) in refusals.into_iter().filter(|(row, _)| overtaken.contains(row)) {
            self.reject_row(row, &error);
        }
    }

    /// A row was rejected for such an error.
    pub(crate) fn use_credit(&mut self) {
        if let Some(doubt) = &mut self.progress.doubt {
            doubt.credit = doubt.credit.saturating_sub(1);
        }
    }

    /// All rows that were tried alone were refused. True when the batch is to wait for others before its table is
    /// parked.
    pub(crate) fn wait_in_doubt(&mut self) -> bool {
        self.progress.doubt.as_mut().is_some_and(|doubt| {
            doubt.probes += 1;
            doubt.refusals.clear();
            !std::mem::replace(&mut doubt.has_waited, true)
        })
    }

    /// Whether it has too few rows to tell whose an error is, and may take over others of its lane.
    pub(crate) fn wants_company(&self) -> bool {
        self.progress.doubt.is_some()
            && self.batch.len() < SAMPLES
            && self.is_untouched()
            // No sink has a copy of its rows any more.
            && Arc::strong_count(&self.batch) == 1
    }

    /// Ends the rest as refused by the table.
    pub(crate) fn reject_rest_of_round(&mut self) {
        let error = self.progress.refusal.clone();
        let rest: Vec<Range<usize>> = self.search().take_rest().collect();
        for range in rest {
            self.failed(range, FailureKind::Rejected, error.as_ref());
        }
    }

    fn sample(
        &mut self,
        refused: Option<Range<usize>>,
        in_order: bool,
        choose: impl FnOnce(&Candidates) -> Vec<usize>,
    ) {
        // Taken out, because the rows and the search are both of this batch.
        let Some(mut search) = self.progress.search.take() else { return };
        let rows = self.rows();
        let choose = |ranges: &[Range<usize>]| {
            if in_order {
                let rows = ranges.iter().cloned().flatten().take(SAMPLES).collect();
                return choose(&Candidates { rows, in_turn: true });
            }
            let (mut rows, firsts) = keys::by_turn_of_key(rows, ranges);
            let in_turn = firsts < SAMPLES && firsts < rows.len();
            rows.truncate(if in_turn { SAMPLES } else { firsts });
            choose(&Candidates { rows, in_turn })
        };
        match refused {
            Some(range) => search.sample(range, choose),
            None => search.begin_sampling(None, choose),
        }
        self.progress.search = Some(search);
    }
}
