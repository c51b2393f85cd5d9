//! Owns how a batch handles an error that the table may have caused: which rows are tried alone, and what follows.
//! Must not know databases or how rows are written; `doubt` has the rules.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use crate::error::SinkError;
use crate::model::keys;
use crate::outcome::outcomes::FailureKind;
use crate::write::doubt::Doubt;
use crate::write::isolate::Search;
use crate::write::job::Job;
use crate::write::repeated::Repeated;
use crate::write::round::Round;
use crate::write::sample::{Candidates, SAMPLES, WIDEST_PROBE};
use crate::write::sink::Written;

/// Which rows that were refused alone must not be written behind the row that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overtaken {
    None,
    OfKey,
    All,
}

/// The most rows that the last try of a batch tries alone.
const LAST_SAMPLES: usize = 16;

impl Job {
    /// A range of the round was refused, with an error that the table may have caused; `committed` was the last commit
    /// before it was sent. True: rows of the range are at fault. False: rows are tried alone next.
    pub(crate) fn doubt(&mut self, range: Range<usize>, committed: u64, error: &SinkError, in_order: bool) -> bool {
        let begun = self.commits.begun();
        self.progress.refusal = Some(error.clone());
        let doubt = self.progress.doubt.get_or_insert_with(|| Doubt::new(begun));
        if doubt.is_proven(committed) {
            if range.len() == 1 {
                doubt.credit -= 1;
            }
            self.search().stop_sampling_but(&range);
            return true;
        }
        doubt.is_open = true;
        if self.search().is_sampling() {
            self.search().sample_refused(range.start, error.clone());
        } else {
            self.sample(Some((range, error)), in_order, |candidates| candidates.choose(SAMPLES));
        }
        false
    }

    /// Records an error of rows that were sent; `committed` was the last commit before. True if it is a transient error
    /// that came from the server, so that a row may have caused it.
    pub(crate) fn note_repeated(&mut self, error: &SinkError, committed: u64) -> bool {
        let Some(code) = error.code().filter(|_| error.is_retryable()) else { return false };
        let begun = self.commits.begun();
        match &mut self.progress.repeated {
            Some(repeated) => repeated.seen(code, begun, committed, Instant::now()),
            None => self.progress.repeated = Some(Repeated::new(code, begun)),
        }
        true
    }

    /// Whether its time is over, and it is searched for the rows that cause such an error.
    pub(crate) fn is_searched_for_repeated(&self) -> bool {
        self.progress.repeated.as_ref().is_some_and(Repeated::is_searching)
    }

    /// Whether this row is rejected when it is refused now.
    pub(crate) fn is_rejected_next(&mut self, range: &Range<usize>, committed: u64) -> bool {
        range.len() == 1 && self.progress.doubt.as_mut().is_some_and(|doubt| doubt.is_proven(committed))
    }

    /// The batch is resumed. While the cause of the error is not known, one row is tried first.
    pub(crate) fn resume_in_doubt(&mut self, in_order: bool) {
        let committed = self.commits.committed();
        let Some(doubt) = &mut self.progress.doubt else { return };
        let is_settled = !doubt.is_open || doubt.is_proven(committed);
        let (probe, is_last_try) = (doubt.probes, doubt.is_last_try || doubt.is_over);
        if !is_settled && !self.search().is_sampling() {
            self.send_earliest_apart();
            self.sample(None, in_order, |candidates| match is_last_try {
                true => candidates.choose_last_probe(probe, LAST_SAMPLES),
                false => candidates.choose_probe(probe),
            });
        }
    }

    /// Rows were refused that stand for earlier ones with their key: the earliest of those show as well whether the table is at fault,
    /// and are written before a later one is rejected.
    fn send_earliest_apart(&mut self) {
        let stands_for_others = self.progress.round.as_ref().is_some_and(Round::stands_for_others);
        if !stands_for_others || self.has_any_maybe_written() {
            return;
        }
        self.postpone_rest();
        self.round().send_earliest_apart();
        self.begin_next_round();
    }

    /// Records what `written` means for such errors, once the rows of the range have their outcomes; `number` is that
    /// of the write. A row that the database ignored counts as committed: the table accepted its statement.
    pub(crate) fn committed(&mut self, range: &Range<usize>, written: &Written, number: u64, overtaken: Overtaken) {
        if range.len() <= written.rejected.len() + written.unfinished.len() {
            return;
        }
        self.commits.commit(number);
        self.progress.has_looked_again = false;
        let Some(doubt) = &mut self.progress.doubt else { return };
        doubt.is_open = false;
        self.end_overtaken(range.start, overtaken, Search::sample_committed);
    }

    /// A range without a reply may be in the database, and is not sent again. Rows that were refused before it, and must not be written
    /// behind it, are rejected.
    pub(crate) fn maybe_committed(&mut self, range: &Range<usize>, overtaken: Overtaken) {
        self.end_overtaken(range.start, overtaken, Search::take_refused);
    }

    /// Rejects those of the refused rows that `take` takes from the search because they are overtaken by `by`.
    fn end_overtaken(
        &mut self,
        by: usize,
        overtaken: Overtaken,
        take: impl FnOnce(&mut Search, &dyn Fn(usize) -> bool) -> Vec<(usize, SinkError)>,
    ) {
        let Some(mut search) = self.progress.search.take() else { return };
        let rows = self.rows();
        let is_overtaken = |row| match overtaken {
            Overtaken::None => false,
            Overtaken::OfKey => keys::have_same_key(rows, row, by),
            Overtaken::All => true,
        };
        let overtaken = take(&mut search, &is_overtaken);
        self.progress.search = Some(search);
        for (row, error) in overtaken {
            self.reject_row(row, &error);
        }
    }

    /// All rows that were tried alone were refused. True when the batch must wait for other batches before its table is
    /// parked.
    pub(crate) fn wait_in_doubt(&mut self) -> bool {
        self.progress.doubt.as_mut().is_some_and(|doubt| {
            doubt.probes += 1;
            !std::mem::replace(&mut doubt.has_waited, true)
        })
    }

    /// The pipeline drains: the next rows that are tried alone decide. False if that try is over.
    pub(crate) fn begin_last_try(&mut self) -> bool {
        self.progress.doubt.as_mut().is_some_and(|doubt| !std::mem::replace(&mut doubt.is_last_try, true))
    }

    /// Whether it is given up if the rows that are tried alone next are refused, because its time is over.
    pub(crate) fn note_last_probe(&mut self, is_over: bool) {
        if let Some(doubt) = &mut self.progress.doubt {
            doubt.is_over = is_over;
        }
    }

    /// Whether it may take over other batches of its lane, because its own rows do not show the cause of the error.
    pub(crate) fn may_take_over(&self) -> bool {
        let Some(doubt) = &self.progress.doubt else { return false };
        (self.batch.len() < SAMPLES || doubt.probes > 1)
            && doubt.is_open
            && !self.has_any_maybe_written()
            // No sink holds its rows any more.
            && Arc::strong_count(&self.batch) == 1
    }

    /// How many rows it should take over, so that it has as many without an outcome as its next probes may try. More with each
    /// probe: if the table is at fault, few batches become one.
    pub(crate) fn rows_to_take_over(&self) -> usize {
        let probes = self.progress.doubt.as_ref().map_or(0, |doubt| doubt.probes);
        let tried = probes.saturating_mul(2 * SAMPLES).min(WIDEST_PROBE);
        tried.saturating_sub(usize::try_from(self.open_rows()).unwrap_or(usize::MAX))
    }

    /// Ends the rest of the round as refused, with an error that does not say that each row was tried.
    pub(crate) fn reject_rest_of_round(&mut self) {
        let error = self.progress.refusal.as_ref().map(SinkError::of_batch);
        let rest: Vec<Range<usize>> = self.search().take_rest().collect();
        for range in rest {
            self.failed(range, FailureKind::Rejected, error.as_ref());
        }
    }

    fn sample(
        &mut self,
        refused: Option<(Range<usize>, &SinkError)>,
        in_order: bool,
        choose: impl FnOnce(&Candidates) -> Vec<usize>,
    ) {
        // Taken out, because the rows and the search both borrow this batch.
        let Some(mut search) = self.progress.search.take() else { return };
        let rows = self.rows();
        search.sample(refused, |ranges: &[Range<usize>]| {
            if in_order {
                return choose(&Candidates { rows: ranges.iter().cloned().flatten().collect(), in_turn: true });
            }
            let (mut rows, firsts) = keys::by_turn_of_key(rows, ranges);
            let in_turn = firsts < SAMPLES && firsts < rows.len();
            if !in_turn {
                rows.truncate(firsts);
            }
            choose(&Candidates { rows, in_turn })
        });
        self.progress.search = Some(search);
    }
}
