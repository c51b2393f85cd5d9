//! Owns what becomes of the rows of a batch while it is written: which end, how, and which are sent once more.
//! Must not know who writes them, or what happens when the batch has ended.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{ErrorClass, SinkError};
use crate::model::batch::SharedRows;
use crate::model::conflict::Action;
use crate::model::keys::Coalescing;
use crate::model::value::Value;
use crate::outcome::outcomes::{FailedRow, FailureKind, Outcome, OutcomeKind};
use crate::write::job::{End, Job};
use crate::write::references::{NextRound, Refused, Waited};
use crate::write::round::{self, MaybeWritten, Round};
use crate::write::sink::Written;

impl Job {
    /// Records a committed write of a range of the round. `repeats` says whether rows may be sent again that may be in
    /// the database.
    pub(crate) fn written(&mut self, range: Range<usize>, written: &Written, repeats: bool) {
        if !written.is_sound(range.len()) {
            let error = SinkError::new(ErrorClass::Internal, "the sink reported outcomes of rows that it did not get");
            return self.failed(range, FailureKind::Unknown, Some(&error));
        }
        self.keep_returned(&range, written);
        let plain = written.ignored.is_empty() && written.rejected.is_empty() && written.unfinished.is_empty();
        if plain && range == (0..self.batch.len()) {
            // A round of as many rows supersedes none.
            self.progress.counts.add(OutcomeKind::Written, range.len() as u64);
            return;
        }
        let mut special = vec![None; if plain { 0 } else { range.len() }];
        written.ignored.iter().for_each(|row| special[*row as usize] = Some(None));
        let failed = written.rejected.iter().chain(&written.unfinished);
        failed.for_each(|(row, error)| special[*row as usize] = Some(Some(error)));
        let is_unfinished = |row: usize| {
            let row = (row - range.start) as u32;
            written.unfinished.binary_search_by_key(&row, |(row, _)| *row).is_ok()
        };
        for row in range.clone() {
            match special.get(row - range.start).copied().flatten() {
                None => self.succeed(row, Outcome::Written),
                Some(None) => self.ignored(row),
                Some(Some(error)) if is_unfinished(row) && error.is_retryable() => self.round().leave(row, error),
                Some(Some(error)) if is_unfinished(row) && error.class() == ErrorClass::Unknown => {
                    self.may_have_written(row..row + 1, error);
                    if repeats {
                        self.round().leave(row, error);
                    } else {
                        self.failed(row..row + 1, FailureKind::Unknown, Some(error));
                    }
                }
                // The attempt whose reply was lost may have written it.
                Some(Some(error)) if self.is_maybe_written(self.row_of_batch(row)) => {
                    self.failed(row..row + 1, FailureKind::Unknown, Some(error));
                }
                Some(Some(error)) => self.reject_row(row, error),
            }
        }
    }

    /// Keeps the values that the database returned, for receipts. Rows that were merged into one have its values.
    pub(super) fn keep_returned(&mut self, range: &Range<usize>, written: &Written) {
        if written.returned.is_empty() || self.parts.iter().all(|part| part.completion.is_none()) {
            return;
        }
        let is_merged = self.progress.round.as_ref().is_some_and(|round| round.coalescing() == Coalescing::Merged);
        for (row, values) in &written.returned {
            let values: Arc<[Value]> = values.as_slice().into();
            let mut next = Some(self.row_of_batch(range.start + *row as usize));
            while let Some(row) = next {
                self.progress.returned.insert(row, Arc::clone(&values));
                next = self.row_before(row).filter(|_| is_merged);
            }
        }
    }

    /// Rejects one row of the round; the row behind it with the same key is sent next. If rows were merged into it, they
    /// are sent one by one instead.
    pub(crate) fn reject_row(&mut self, row: usize, error: &SinkError) {
        self.progress.refusal = Some(error.clone());
        self.commits.reject();
        self.progress.references.rejected();
        self.fail_alone(row, FailureKind::Rejected, error);
    }

    /// A range of the round was refused by a foreign key. True if it waits, for rows of the batch to which it may refer.
    pub(crate) fn wait_for_others(&mut self, range: Range<usize>, error: &SinkError) -> bool {
        let all = self.rows().len();
        // Rows with a key keep their order. Past the budget the table may be at fault.
        let may_wait = self.batch.schema().key_columns().is_empty() && !self.progress.is_past_budget;
        if !may_wait {
            return false;
        }
        match self.progress.references.refused(range.len(), all) {
            Refused::AsEver => return false,
            Refused::Waits if range.len() == 1 => {
                let row = self.row_of_batch(range.start);
                self.progress.references.wait(row, error.clone());
            }
            Refused::Waits => self.postpone(range),
            Refused::IsReversed => {
                self.round().reverse();
                self.postpone(range);
            }
            Refused::EndsRound => {
                self.postpone(range);
                self.postpone_rest();
            }
        }
        true
    }

    /// The rows that are left without those that wait do not show whether the table is at fault: a round begins with both. False if no
    /// part waits.
    pub(crate) fn begin_with_waiting(&mut self) -> bool {
        if !self.progress.references.end_parts() {
            return false;
        }
        self.postpone_rest();
        // They may refer to rows of the parts, which were not tried since.
        let alone = self.progress.references.take_alone();
        self.try_again(alone);
        if let Some(doubt) = &mut self.progress.doubt {
            doubt.begins_anew();
        }
        self.begin_next_round()
    }

    /// The search for bad rows ends: rows that wait alone are rejected as they were refused.
    pub(crate) fn reject_waiting(&mut self) {
        let alone = self.progress.references.take_alone();
        self.reject_alone(alone);
    }

    fn reject_alone(&mut self, rows: Vec<(usize, SinkError)>) {
        for (row, error) in rows {
            self.commits.reject();
            self.fail_alone_of_batch(row, FailureKind::Rejected, &error);
        }
    }

    fn try_again(&mut self, rows: Vec<(usize, SinkError)>) {
        rows.into_iter().for_each(|(row, _)| self.round().give_turn(row));
    }

    /// The round has ended: rows that waited alone are tried again, or rejected if none was committed or rejected meanwhile.
    pub(super) fn end_waiting_for_others(&mut self) {
        if let Some(doubt) = self.progress.doubt.as_mut().filter(|_| self.progress.references.has_waiting()) {
            doubt.begins_anew();
        }
        let NextRound { is_reversed, alone } = self.progress.references.end_round();
        if is_reversed {
            self.round().reverse();
        }
        match alone {
            Waited::TriedAgain(rows) => self.try_again(rows),
            Waited::Rejected(rows) => {
                if let Some((_, error)) = rows.last() {
                    self.progress.refusal = Some(error.clone());
                }
                self.reject_alone(rows);
            }
        }
    }

    /// Ends one row of the round that was refused alone with a transient error when its time was over. The rows behind it
    /// were not sent: they have their turn as after a rejected row.
    pub(crate) fn expire_row(&mut self, row: usize, error: &SinkError) {
        self.fail_alone(row, FailureKind::Expired, error);
    }

    /// How many rows of the batch a row of the round stands for.
    pub(crate) fn rows_behind(&self, row: usize) -> usize {
        std::iter::successors(Some(self.row_of_batch(row)), |row| self.open_row_before(*row)).count()
    }

    pub(super) fn fail_alone(&mut self, row: usize, kind: FailureKind, error: &SinkError) {
        self.fail_alone_of_batch(self.row_of_batch(row), kind, error);
    }

    fn fail_alone_of_batch(&mut self, row: usize, kind: FailureKind, error: &SinkError) {
        if self.round().send_apart(row) {
            return;
        }
        self.fail(row, kind, Some(error));
        if let Some(before) = self.open_row_before(row) {
            self.round().give_turn(before);
        }
    }

    /// The row before a row of the batch, with the same key, when it has no outcome yet.
    pub(super) fn open_row_before(&self, row: usize) -> Option<usize> {
        self.row_before(row).filter(|before| self.is_open(*before))
    }

    /// Records that a range of the round may be in the database since an attempt that ended with `error`.
    pub(crate) fn may_have_written(&mut self, range: Range<usize>, error: &SinkError) {
        self.round().may_have_written(range, error);
    }

    /// Whether rows of a range of the round may be in the database.
    pub(crate) fn has_maybe_written(&self, mut range: Range<usize>) -> bool {
        range.any(|row| self.is_maybe_written(self.row_of_batch(row)))
    }

    /// Whether the sink is asked which rows of a range it has as they are: a row whose version is there would be ignored,
    /// also if the attempt without a reply has written it.
    pub(crate) fn asks_for_written(&self, range: Range<usize>) -> bool {
        let schema = self.batch.schema();
        schema.version_column().is_some() && schema.only_overwrites() && self.has_maybe_written(range)
    }

    /// The rows of a range of the round that may be in the database: their numbers within the range, and a copy.
    pub(crate) fn maybe_written_rows(&mut self, range: Range<usize>) -> (Vec<u32>, SharedRows) {
        let is_maybe = |row: &usize| self.is_maybe_written(self.row_of_batch(range.start + row));
        let maybe = (0..range.len()).filter(is_maybe).map(|row| row as u32).collect::<Vec<_>>();
        let copy = self.rows().slice(range).gather(&maybe);
        (maybe, copy)
    }

    /// Ends the rows of a range of the round that may be in the database, after the range was refused, and leaves the
    /// others to the next round. They are not tried in parts: writing only some of them again could overwrite a newer
    /// version of a key with an older one. True if rows are left to the next round.
    pub(crate) fn fail_maybe_written(&mut self, range: Range<usize>, error: &SinkError) -> bool {
        let Some(round) = &mut self.progress.round else { return false };
        let MaybeWritten { rows, overtaken } = round.maybe_written(&self.batch, range.clone());
        let mut leaves = false;
        for (place, row) in range.enumerate() {
            if rows[place] || overtaken[place] {
                self.failed(row..row + 1, FailureKind::Rejected, Some(error));
            } else {
                self.postpone(row..row + 1);
                leaves = true;
            }
        }
        leaves
    }

    /// Leaves a range of the round to the next one.
    pub(crate) fn postpone(&mut self, range: Range<usize>) {
        self.round().postpone(range);
    }

    /// Leaves the rest of the round to the next one.
    pub(crate) fn postpone_rest(&mut self) {
        let left: Vec<Range<usize>> = self.search().take_rest().collect();
        left.into_iter().for_each(|range| self.postpone(range));
    }

    /// Whether rows are left to the next round because the sink could not finish them.
    pub(crate) fn has_unfinished(&self) -> bool {
        self.progress.round.as_ref().is_some_and(Round::has_unfinished)
    }

    /// Ends the rows that the sink could not finish, each with its own error: those that may be in the database as
    /// `Unknown`.
    pub(crate) fn fail_unfinished(&mut self, kind: FailureKind) {
        for (row, error) in self.progress.round.as_mut().map(Round::take_unfinished).unwrap_or_default() {
            self.fail_with_predecessors(row as usize, kind, Some(&error));
        }
    }

    /// Ends the rows of a range of the round, and the rows that they would have superseded: those that may be in the
    /// database as `Unknown`.
    pub(crate) fn failed(&mut self, range: Range<usize>, kind: FailureKind, error: Option<&SinkError>) {
        for row in range {
            self.fail_with_predecessors(self.row_of_batch(row), kind, error);
        }
    }

    /// Ends a row of the batch, and the rows that it would have superseded.
    pub(super) fn fail_with_predecessors(&mut self, row: usize, kind: FailureKind, error: Option<&SinkError>) {
        // The error is that of the attempt that may have written it, not that of a later one.
        let since = self.progress.round.as_ref().and_then(|round| round.maybe_written_since(row)).cloned();
        let (kind, error) = match &since {
            Some(since) => (FailureKind::Unknown, Some(since)),
            None => (kind, error),
        };
        let mut next = Some(row);
        while let Some(row) = next {
            if self.is_open(row) {
                self.fail(row, kind, error);
            }
            next = self.row_before(row);
        }
    }

    /// Ends every row that has no outcome yet.
    pub(crate) fn failed_rest(&mut self, kind: FailureKind, error: Option<&SinkError>) {
        for row in 0..self.batch.len() {
            if self.is_maybe_written(row) && self.is_open(row) {
                self.fail_with_predecessors(row, kind, error);
            }
        }
        for row in 0..self.batch.len() {
            if self.is_open(row) {
                self.fail(row, kind, error);
            }
        }
    }

    /// Ends a row of the round that was not refused, and the rows behind it.
    pub(super) fn succeed(&mut self, row: usize, outcome: Outcome) {
        let row = self.row_of_batch(row);
        let coalescing = self.progress.round.as_ref().map_or(Coalescing::Off, Round::coalescing);
        let mut next = self.row_before(row);
        while let Some(behind) = next.filter(|row| self.is_open(*row)) {
            self.decide(
                behind,
                match coalescing {
                    Coalescing::Merged => outcome.clone(),
                    // An older row that came later.
                    Coalescing::Newest(_) if behind > row => Outcome::Ignored,
                    Coalescing::Off | Coalescing::Last | Coalescing::Newest(_) => Outcome::Superseded,
                },
            );
            next = self.row_before(behind);
        }
        self.decide(row, outcome);
    }

    /// The database ignored a row of the round. The row has superseded nothing: the row before it is sent, and then it
    /// is sent again. A batch that must be atomic is sent once, so the rows before it end as it does. So do older
    /// versions of the row, rows that were merged into it, and rows of a key that is not in the table.
    pub(super) fn ignored(&mut self, row: usize) {
        let row = self.row_of_batch(row);
        let is_sent_again = self.progress.round.as_ref().is_some_and(|round| round.is_sent_again(row));
        let is_overwriting = self.progress.round.as_ref().is_some_and(|round| round.coalescing() == Coalescing::Last)
            && !matches!(self.batch.schema().action(), Action::UpdateOnly | Action::Delete);
        match self.open_row_before(row) {
            Some(before) if is_overwriting && !self.progress.is_atomic && !is_sent_again => {
                self.round().send_again_after(before, row);
            }
            _ => {
                let mut next = Some(row);
                while let Some(row) = next.filter(|row| self.is_open(*row)) {
                    self.decide(row, Outcome::Ignored);
                    next = self.row_before(row);
                }
            }
        }
    }

    /// The round; all rows as they are, when there was none.
    pub(super) fn round(&mut self) -> &mut Round {
        self.progress.round.get_or_insert_with(|| Round::whole(self.batch.len()))
    }

    pub(super) fn row_of_batch(&self, row: usize) -> usize {
        self.progress.round.as_ref().map_or(row, |round| round.row_of_batch(row))
    }

    /// The row before a row of the batch, with the same key.
    pub(super) fn row_before(&self, row: usize) -> Option<usize> {
        self.progress.round.as_ref()?.row_before(row)
    }

    /// Whether a row of the batch may be in the database.
    pub(super) fn is_maybe_written(&self, row: usize) -> bool {
        self.progress.round.as_ref().is_some_and(|round| round.is_maybe_written(row))
    }

    pub(super) fn fail(&mut self, row: usize, kind: FailureKind, error: Option<&SinkError>) {
        if let Some(error) = error {
            self.progress.failure_log.note(error);
        }
        if let (FailureKind::Rejected, Some(error)) = (kind, error) {
            self.progress.rejected[error.class() as usize] += 1;
        }
        // The row is copied only if a receipt or a consumer gets it.
        if self.parts.iter().any(|part| part.completion.is_some()) || self.pipeline.ledger.wants_failed_rows() {
            let failed = FailedRow::new(self.batch.row(row), self.attempts_of(row), error.cloned());
            self.decide(row, Outcome::failed(kind, failed));
        } else {
            self.progress.counts.add(kind.outcome(), 1);
            self.mark(row, End::Counted);
        }
    }

    pub(super) fn decide(&mut self, row: usize, outcome: Outcome) {
        self.progress.counts.add(outcome.kind(), 1);
        self.mark(row, End::Known(outcome));
    }

    pub(super) fn mark(&mut self, row: usize, end: End) {
        if self.progress.ends.is_empty() {
            self.progress.ends.resize(self.batch.len(), End::Open);
        }
        debug_assert!(matches!(self.progress.ends[row], End::Open), "no row ends twice");
        self.progress.ends[row] = end;
        if let Some(round) = &mut self.progress.round {
            round.ended(row);
        }
    }

    /// Rows of a range of the round are sent once more.
    pub(crate) fn count_attempt(&mut self, range: &Range<usize>) {
        self.progress.attempts += 1;
        if *range == (0..self.batch.len()) {
            self.progress.attempts_of_all += 1;
            return;
        }
        let mut attempts = std::mem::take(&mut self.progress.attempts_of_some);
        attempts.resize(self.batch.len(), 0);
        range.clone().for_each(|row| attempts[self.row_of_batch(row)] += 1);
        self.progress.attempts_of_some = attempts;
    }

    /// How often a row of the batch was sent.
    pub(super) fn attempts_of(&self, row: usize) -> u32 {
        self.progress.attempts_of_all + self.progress.attempts_of_some.get(row).copied().unwrap_or(0)
    }

    /// Whether rows have no outcome yet.
    pub(crate) fn has_open_rows(&self) -> bool {
        self.open_rows() > 0
    }

    pub(crate) fn open_rows(&self) -> u64 {
        self.batch.len() as u64 - self.progress.counts.total()
    }

    /// The rows of the batch that have no outcome yet.
    pub(super) fn open_numbers(&self) -> Vec<u32> {
        (0..self.batch.len()).filter(|row| self.is_open(*row)).map(round::number).collect()
    }

    pub(super) fn is_open(&self, row: usize) -> bool {
        self.open_rows() > 0 && self.progress.ends.get(row).is_none_or(|end| matches!(end, End::Open))
    }
}
