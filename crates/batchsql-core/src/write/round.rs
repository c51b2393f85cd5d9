//! Owns the rounds of a batch: which of its rows are written now and which come next, and which may be in the database
//! already. Must not know how rows end, or who writes them.
//!
//! The first round has the last row of each key, or all rows if rows are not coalesced, sorted by key if the sink asks
//! for it. If a row is rejected, the row before it with the same key is sent in the next round. Rows that the sink could
//! not finish are also sent in the next round, after a backoff.
//!
//! Example: batch 1 has rows a1 and a2 of key a, batch 2 has row b1, and one pull merges them.
//!
//! ```text
//! round 1 sends a2 b1       refused together, then tried alone: a2 is rejected, b1 is committed
//! round 2 sends a1          committed: a1 ends as written
//! ```
//!
//! If a2 had been committed in round 1, a1 would have ended as superseded, without a second round. If the rule adds rows
//! up, round 1 sends their sum in the place of a2, and round 2 sends a1 and a2 if the sum is refused.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::error::SinkError;
use crate::model::batch::{Batch, Rows};
use crate::model::keys::{self, Arranged, Coalescing};
use crate::model::merge;

/// See [`Round::send_earliest_apart`].
const MOST_APART: usize = 16;

/// The rows that are being written, when they are not simply all of the batch. Rows of the round are numbered by their
/// position in the round, rows of the batch by their position in the batch.
pub(crate) struct Round {
    /// The row of the batch for each row of the round.
    rows: Box<[u32]>,
    /// A copy of these rows; `None` until it is needed, and while the batch backs off.
    copy: Option<Arc<Batch>>,
    /// For each row of the batch the row behind it with the same key, see [`Arranged`]; empty if no row replaces another.
    previous: Box<[Option<u32>]>,
    coalescing: Coalescing,
    /// Whether every round is sorted by key.
    sorts: bool,
    /// Whether rounds have the last row of the batch first. Not together with `sorts`.
    is_reversed: bool,
    /// Rows of the batch that are sent in the next round.
    next: Vec<u32>,
    /// Rows of the batch that the sink left without an outcome, with its reason: also sent in the next round, after a backoff.
    unfinished: Vec<(u32, SinkError)>,
    /// By row of the batch, the later row with its key that the database ignored and that is sent again after it.
    again: HashMap<u32, u32>,
    /// Rows of the batch that are sent again for this reason.
    sent_again: HashSet<u32>,
    /// Rows of the batch of which an earlier attempt may have reached the database, with the error of that attempt.
    maybe_written: HashMap<u32, SinkError>,
}

impl Round {
    /// The first round of a batch that is not written as it is.
    pub(crate) fn arranged(Arranged { rows, previous, coalescing }: Arranged, sorts: bool) -> Self {
        Self { previous, coalescing, sorts, ..Self::of(rows) }
    }

    /// All rows as they are. Those of later rounds need no sorting: they are in the order of the batch.
    pub(crate) fn whole(rows: usize) -> Self {
        Self::of((0..rows).map(number).collect())
    }

    /// The round of a batch of `rows` rows of which only those in `open` have no outcome: these as they are, or as they were arranged.
    pub(crate) fn of_open(open: &[u32], arranged: Option<Arranged>, sorts: bool, rows: usize) -> Self {
        let of_batch = |row: u32| open[row as usize];
        let Some(arranged) = arranged else { return Self::of(open.into()) };
        let mut previous = vec![None; if arranged.previous.is_empty() { 0 } else { rows }];
        for (row, before) in open.iter().zip(&arranged.previous) {
            previous[*row as usize] = before.map(of_batch);
        }
        let rows = arranged.rows.iter().copied().map(of_batch).collect();
        Self::arranged(Arranged { rows, previous: previous.into(), coalescing: arranged.coalescing }, sorts)
    }

    fn of(rows: Box<[u32]>) -> Self {
        Self {
            rows,
            copy: None,
            previous: Box::default(),
            coalescing: Coalescing::Off,
            sorts: false,
            is_reversed: false,
            next: Vec::new(),
            unfinished: Vec::new(),
            again: HashMap::new(),
            sent_again: HashSet::new(),
            maybe_written: HashMap::new(),
        }
    }

    /// Begins a round with the rows that were left to it; `None` when there is none, else their number.
    pub(crate) fn begin_next(&mut self, batch: &Arc<Batch>) -> Option<usize> {
        let mut rows = std::mem::take(&mut self.next);
        rows.extend(self.unfinished.drain(..).map(|(row, _)| row));
        rows.sort_unstable();
        if self.sorts {
            keys::sort(Rows::all(batch), &mut rows);
        }
        if self.is_reversed {
            rows.reverse();
        }
        self.copy = None;
        self.rows = rows.into();
        Some(self.rows.len()).filter(|rows| *rows > 0)
    }

    /// The rows of the round.
    pub(crate) fn rows<'a>(&'a mut self, batch: &'a Arc<Batch>) -> Rows<'a> {
        if self.rows.len() == batch.len() && self.rows.is_sorted() {
            return Rows::all(batch);
        }
        let (rows, previous, coalescing) = (&self.rows, &self.previous, self.coalescing);
        let copy = || match coalescing {
            Coalescing::Merged => merge::gather(batch, rows, |row| keys::chain(previous, row).collect()),
            Coalescing::Off | Coalescing::Last | Coalescing::Newest(_) => batch.gather(rows),
        };
        Rows::all(self.copy.get_or_insert_with(|| Arc::new(copy())))
    }

    /// From the next round on, rows are in the opposite order. For rows without a key.
    pub(crate) fn reverse(&mut self) {
        self.is_reversed = !self.is_reversed;
    }

    /// How rows of one key became one.
    pub(crate) fn coalescing(&self) -> Coalescing {
        self.coalescing
    }

    /// Sends the rows that were merged into a row of the batch one by one in the next round. False if it stands for
    /// itself only.
    pub(crate) fn send_apart(&mut self, row: usize) -> bool {
        if self.coalescing != Coalescing::Merged || self.row_before(row).is_none() {
            return false;
        }
        let merged: Vec<u32> = keys::chain(&self.previous, number(row)).collect();
        merged.iter().for_each(|row| self.previous[*row as usize] = None);
        self.next.extend(merged);
        true
    }

    /// Whether a row of the round stands for earlier ones with its key.
    pub(crate) fn stands_for_others(&self) -> bool {
        self.rows.iter().any(|row| self.row_before(*row as usize).is_some())
    }

    /// The earliest rows of some keys are sent in the next round by themselves, and not left to a later row with their key. For
    /// at most [`MOST_APART`] keys, chosen at random, and as many rows of each.
    pub(crate) fn send_earliest_apart(&mut self) {
        let heads = self.next.iter().copied().filter(|row| self.row_before(*row as usize).is_some());
        for head in fastrand::choose_multiple(heads, MOST_APART) {
            let chain: Vec<u32> = keys::chain(&self.previous, head).collect();
            let (later, earliest) = chain.split_at(chain.len() - MOST_APART.min(chain.len() - 1));
            later.last().into_iter().chain(earliest).for_each(|row| self.previous[*row as usize] = None);
            self.next.extend(earliest);
        }
    }

    /// Drops the copy of the rows until it is needed again.
    pub(crate) fn release_copy(&mut self) {
        self.copy = None;
    }

    /// The row of the batch for a row of the round.
    pub(crate) fn row_of_batch(&self, row: usize) -> usize {
        self.rows[row] as usize
    }

    /// The row behind a row of the batch, with the same key.
    pub(crate) fn row_before(&self, row: usize) -> Option<usize> {
        self.previous.get(row)?.map(|row| row as usize)
    }

    /// Puts a row of the batch into the next round.
    pub(crate) fn give_turn(&mut self, row: usize) {
        self.next.push(number(row));
    }

    /// Sends `before` in the next round, and then `row` again, which the database ignored.
    ///
    /// Example: the table has v2 of a key, and a trigger ignores updates that change nothing. Of v1 and v2 only v2 is
    /// sent, and is ignored. Then v1 is sent, and v2 again: the table has v2, as if both had been sent in their order.
    pub(crate) fn send_again_after(&mut self, before: usize, row: usize) {
        self.give_turn(before);
        self.again.insert(number(before), number(row));
    }

    /// Whether a row of the batch is sent for the second time because it was ignored.
    pub(crate) fn is_sent_again(&self, row: usize) -> bool {
        !self.sent_again.is_empty() && self.sent_again.contains(&number(row))
    }

    /// A row of the batch has its outcome: a later row that waits for it is sent next.
    pub(crate) fn ended(&mut self, row: usize) {
        if let Some(later) = self.again.remove(&number(row)) {
            self.sent_again.insert(later);
            self.next.push(later);
        }
    }

    /// Leaves a range of the round to the next one.
    pub(crate) fn postpone(&mut self, range: Range<usize>) {
        self.next.extend_from_slice(&self.rows[range]);
    }

    /// Leaves a row of the round, which the sink could not finish, to the next one.
    pub(crate) fn leave(&mut self, row: usize, error: &SinkError) {
        self.unfinished.push((self.rows[row], error.clone()));
    }

    /// Whether rows are left to the next round because the sink could not finish them.
    pub(crate) fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// The rows of the batch that the sink could not finish, each with its error. They have no further round.
    pub(crate) fn take_unfinished(&mut self) -> Vec<(u32, SinkError)> {
        std::mem::take(&mut self.unfinished)
    }

    /// Records that rows of the round may be in the database since an attempt that ended with `error`.
    pub(crate) fn may_have_written(&mut self, range: Range<usize>, error: &SinkError) {
        for row in &self.rows[range] {
            self.maybe_written.entry(*row).or_insert_with(|| error.clone());
        }
    }

    /// Whether any row of the batch may be in the database.
    pub(crate) fn has_maybe_written(&self) -> bool {
        !self.maybe_written.is_empty()
    }

    /// Whether a row of the batch may be in the database.
    pub(crate) fn is_maybe_written(&self, row: usize) -> bool {
        self.maybe_written_since(row).is_some()
    }

    /// The error of the attempt since which a row of the batch may be in the database.
    pub(crate) fn maybe_written_since(&self, row: usize) -> Option<&SinkError> {
        if self.maybe_written.is_empty() { None } else { self.maybe_written.get(&number(row)) }
    }

    /// The rows of a range of the round that may be in the database, and those that must not be written any more
    /// because a later row with their key may be there.
    pub(crate) fn maybe_written(&mut self, batch: &Arc<Batch>, range: Range<usize>) -> MaybeWritten {
        let rows: Vec<bool> = range.clone().map(|row| self.is_maybe_written(self.row_of_batch(row))).collect();
        let overtaken = keys::has_later(self.rows(batch).slice(range), &rows);
        MaybeWritten { rows, overtaken }
    }
}

/// One entry per row of a range.
pub(crate) struct MaybeWritten {
    /// It may be in the database itself.
    pub(crate) rows: Vec<bool>,
    /// A later row with its key may be there.
    pub(crate) overtaken: Vec<bool>,
}

pub(super) fn number(row: usize) -> u32 {
    u32::try_from(row).expect("buffer_size fits u32")
}
