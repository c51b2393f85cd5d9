//! Owns the task of one partition that is written at least once: it submits rows in order, follows their outcomes, and
//! settles.
//! Must not know how blocks are made or read.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{EndedRows, ErrorClass, Outcome, Queue, RowReceipts, SharedRows, SinkError, StopReason};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::context::{Context, Ending};
use crate::key::{self, KeyOrder};
use crate::misfits::Misfit;
use crate::options::{FeedSabotage, Misfits};
use crate::partition::{Found, Partition, Watched};
use crate::rows::StoredRows;
use crate::source::Source;
use crate::state::PartitionState;
use crate::window::{End, Part, Settled, Window};

/// How often a partition looks whether its table is parked.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until it is ended, and returns the source.
pub(crate) async fn run<S: Source>(
    context: Arc<Context>,
    state: Arc<PartitionState>,
    source: S,
    ending: watch::Receiver<Ending>,
) -> S {
    let _watched = Watched { context: Arc::clone(&context), state: Arc::clone(&state) };
    state.hold(true);
    let at = Partition::new(context, state, source, ending);
    let (window, sent, next_look) = (Window::default(), Queue::new(), Instant::now() + LOOK);
    let feed = Feed { at, window, sent, table: None, next_look, has_refused: false };
    feed.run().await
}

struct Feed<S> {
    at: Partition<S>,
    window: Window<StoredRows>,
    /// What is in flight, in the order in which it was submitted.
    sent: Queue<Sent>,
    /// The table as the pipeline shows it.
    table: Option<String>,
    /// When it looks again whether the table is parked, however much happens meanwhile.
    next_look: Instant,
    /// A row was refused, so that it and those behind it are not submitted by this process.
    has_refused: bool,
}

/// Rows of a block that were submitted together.
struct Sent {
    /// The sequence of the first row of the block.
    block: u64,
    rows: Numbers,
    receipts: RowReceipts,
}

/// Which rows of a block.
#[derive(Debug, Clone)]
enum Numbers {
    All(Range<usize>),
    These(Vec<u32>),
}

impl Numbers {
    fn len(&self) -> usize {
        match self {
            Self::All(rows) => rows.len(),
            Self::These(rows) => rows.len(),
        }
    }

    /// Removes those from this place on, and returns them.
    fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::All(rows) => {
                let all = std::mem::replace(rows, rows.start..rows.start + at);
                Self::All(all.start + at..all.end)
            }
            Self::These(rows) => Self::These(rows.split_off(at)),
        }
    }

    /// The number of the row that was submitted at this place.
    fn get(&self, index: usize) -> usize {
        match self {
            Self::All(rows) => rows.start + index,
            Self::These(rows) => rows[index] as usize,
        }
    }

    /// Those that were submitted at these places, as ranges.
    fn ranges(&self, indexes: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let whole = match self {
            Self::All(rows) => Some(rows.start + indexes.start..rows.start + indexes.end),
            Self::These(_) => None,
        };
        let single = if whole.is_some() { 0..0 } else { indexes };
        whole.into_iter().chain(single.map(|index| self.get(index)..self.get(index) + 1))
    }
}

impl<S: Source> Feed<S> {
    async fn run(mut self) -> S {
        loop {
            self.take_outcomes().await;
            if self.looks() && self.next_look <= Instant::now() {
                self.next_look = look(&mut self.at, &self.table);
            }
            let is_ending = self.at.is_ending();
            if is_ending && self.sent.is_empty() {
                // A row that has an order may be written before them by the next start.
                let ended = self.window.ended_behind(|stored| matches!(stored.order, KeyOrder::None));
                self.at.settle_behind(ended).await;
                return self.at.source;
            }
            if !is_ending && self.window.has_failed() {
                // Nothing is read before these rows are known to be written.
                if self.sent.is_empty() && !self.has_refused {
                    self.write_again().await;
                    continue;
                }
            } else if !is_ending && self.at.is_ready() {
                let found = self.at.read().await;
                self.take(found).await;
                continue;
            }
            self.wait().await;
        }
    }

    /// Whether rows may wait for their table, or for it to be mended.
    fn looks(&self) -> bool {
        !self.sent.is_empty() || self.at.is_aside()
    }

    /// Until something has changed, or it is time to look.
    async fn wait(&mut self) {
        let looks = self.looks();
        let front = self.sent.front_mut().map(|sent| &mut sent.receipts);
        let has_front = front.is_some();
        let found = tokio::select! {
            () = async { front.expect("checked by has_front").ready().await }, if has_front => return,
            found = self.at.changed() => found,
            () = sleep_until(self.next_look), if looks => return,
        };
        self.take(found).await;
    }

    async fn take(&mut self, found: Found) {
        match found {
            Found::Rows(pieces) => {
                let mut misfits = Vec::new();
                for stored in pieces {
                    self.submit_new(stored, &mut misfits).await;
                }
                self.reject(misfits).await;
            }
            Found::Skipped(first, last) => {
                self.window.push_gap(first, last);
                self.settle().await;
            }
            Found::Nothing => {}
        }
    }

    /// Takes the outcomes that are known, from the front, and settles.
    async fn take_outcomes(&mut self) {
        let (mut rejected, mut lines, mut accepted) = (Vec::new(), String::new(), None);
        while let Some(sent) = self.sent.front_mut() {
            let Some(EndedRows { rows, failed, .. }) = sent.receipts.try_next() else {
                if !sent.receipts.is_empty() {
                    break;
                }
                self.sent.pop_front();
                continue;
            };
            let (block, mut next) = (sent.block, rows.start);
            let mut written = |rows: Range<usize>| {
                if let Some(last) = rows.clone().next_back() {
                    accepted = accepted.max(Some(block + sent.rows.get(last) as u64));
                }
                sent.rows.ranges(rows).for_each(|rows| self.window.end(block, rows, End::Written));
            };
            let mut others = Vec::new();
            for (index, outcome) in failed {
                written(next..index);
                next = index + 1;
                others.push((sent.rows.get(index), outcome));
            }
            written(next..rows.end);
            for (row, outcome) in others {
                match &outcome {
                    Outcome::Rejected(_) => {
                        lines.extend(self.at.letter(block + row as u64, &outcome));
                        rejected.push((block, row));
                    }
                    // Unknown, expired, purged, and what a later version may add.
                    _ => self.window.end(block, row..row + 1, End::Failed),
                }
            }
        }
        if let Some(sequence) = accepted {
            self.at.accepted(sequence);
        }
        if !rejected.is_empty() {
            let end = if self.at.keep_letters(lines, rejected.len()).await { End::Rejected } else { End::Failed };
            rejected.into_iter().for_each(|(block, row)| self.window.end(block, row..row + 1, end));
        }
        self.settle().await;
    }

    async fn settle(&mut self) {
        let Some(Settled { first, last, written }) = self.window.settle() else { return };
        self.at.counts.written.add(written);
        self.at.settle(first, last).await;
    }

    /// Submits rows again whose outcome was not known.
    async fn write_again(&mut self) {
        if !self.at.pause().await {
            return;
        }
        let again = self.window.write_again(|stored, row| key::of_view(stored.rows.rows().row(row), &stored.order));
        let rows: usize = again.iter().map(|part| part.rows.len()).sum();
        self.at.counts.written_again.add(rows as u64);
        let mut misfits = Vec::new();
        for Part { block, rows } in again {
            self.submit(block, Numbers::These(rows), &mut misfits).await;
        }
        self.reject(misfits).await;
    }

    async fn submit_new(&mut self, stored: StoredRows, misfits: &mut Vec<Misfit>) {
        let (first, count) = (stored.first, stored.len());
        // The first rows of a block may be settled.
        let settled = (self.at.state.settled() + 1).saturating_sub(first);
        let settled = usize::try_from(settled).map_or(count, |settled| settled.min(count));
        if settled == count {
            return;
        }
        if self.table.is_none() {
            self.table = Some(stored.rows.rows().schema().table_display().to_owned());
        }
        if stored.ended.is_empty() {
            self.window.push(first, count, settled, stored);
            return self.submit(first, Numbers::All(settled..count), misfits).await;
        }
        let (left, ended) = stored.split_ended(settled);
        self.window.push(first, count, settled, stored);
        // They were counted by the process that has written them.
        ended.into_iter().for_each(|rows| self.window.end(first, rows, End::Rejected));
        self.submit(first, Numbers::These(left), misfits).await;
    }

    /// Submits rows of a block of the window. Rows that are not accepted have failed, and stay in the source; those that can
    /// never be accepted are added to `misfits`.
    async fn submit(&mut self, block: u64, numbers: Numbers, misfits: &mut Vec<Misfit>) {
        if self.at.is_ending() || self.window.has_failed() {
            // A row before them was not accepted. It may have the key of one of them.
            return numbers.ranges(0..numbers.len()).for_each(|rows| self.window.end(block, rows, End::Failed));
        }
        let stored = self.window.block(block).expect("rows of the window are submitted");
        if stored.is_refused() {
            let refused = (0..numbers.len()).map(|index| numbers.get(index));
            return misfits.extend(refused.map(|row| stored.misfit(row, stored.refusals[row].clone())));
        }
        let (rows, mut left) = (stored.rows.clone(), numbers);
        while left.len() > 0 {
            let Some((mut rest, error)) = self.submit_until_refused(block, &rows, left).await else { break };
            left = rest.split_off(1);
            misfits.push(Misfit { block, rows: rows.clone(), row: rest.get(0), error });
        }
    }

    /// Rejects rows that can never be accepted. Past as many as the budget of the search for bad rows allows, their partition
    /// stops. The letters of one call are written together.
    async fn reject(&mut self, mut misfits: Vec<Misfit>) {
        while let Some(first) = misfits.first() {
            let may_reject = self.at.may_reject(first.rows.rows());
            if may_reject == 0 {
                // A row in flight may be accepted.
                if !self.sent.is_empty() && !self.at.is_ending() && !self.window.has_failed() {
                    self.wait_for_outcomes().await;
                    continue;
                }
                if !self.at.is_ending() && !self.window.has_failed() {
                    self.has_refused = true;
                    self.at.stop_at_misfit(first);
                }
                self.end(&misfits, End::Failed);
                break;
            }
            let left = misfits.split_off(may_reject.min(misfits.len()));
            let is_kept = self.at.reject(&misfits).await;
            self.end(&misfits, if is_kept { End::Rejected } else { End::Failed });
            misfits = left;
        }
        self.settle().await;
    }

    fn end(&mut self, misfits: &[Misfit], end: End) {
        misfits.iter().for_each(|Misfit { block, row, .. }| self.window.end(*block, *row..*row + 1, end));
    }

    /// Takes more outcomes of rows in flight, or returns when the feed ends.
    async fn wait_for_outcomes(&mut self) {
        let ends = self.at.ends();
        let Some(front) = self.sent.front_mut() else { return };
        tokio::select! {
            () = front.receipts.ready() => {}
            () = ends => {}
            () = sleep_until(self.next_look) => self.next_look = look(&mut self.at, &self.table),
        }
        self.take_outcomes().await;
    }

    /// Submits rows up to one that can never be accepted. Returns the rows from this one on, and why.
    async fn submit_until_refused(
        &mut self,
        block: u64,
        rows: &SharedRows,
        mut numbers: Numbers,
    ) -> Option<(Numbers, SinkError)> {
        let context = Arc::clone(&self.at.context);
        let views = (0..numbers.len()).map(|index| rows.rows().row(numbers.get(index)));
        if context.options.sabotage == Some(FeedSabotage::SettleEarly) {
            let _ = context.pipeline.submit_all(views).await;
            numbers.ranges(0..numbers.len()).for_each(|rows| self.window.end(block, rows, End::Written));
            self.settle().await;
            return None;
        }
        let mut receipts = RowReceipts::new();
        let submitted = {
            let accepted = context.pipeline.submit_all_followed(views, &mut receipts);
            tokio::pin!(accepted);
            loop {
                tokio::select! {
                    // Most rows are accepted at once, without a timer.
                    biased;
                    submitted = &mut accepted => break submitted.map_err(Some),
                    () = self.at.ends() => break Err(None),
                    // The wait may be long: the table has its share of the buffer already.
                    () = sleep_until(self.next_look) => self.next_look = look(&mut self.at, &self.table),
                }
            }
        };
        let accepted = receipts.accepted();
        let row_error = match &submitted {
            Err(Some(error)) => error.row_error(),
            _ => None,
        };
        let mut refused = None;
        if let Some(error) = row_error
            && context.options.misfits == Misfits::Reject
        {
            refused = Some((numbers.split_off(accepted), SinkError::new(ErrorClass::Row, error.to_string())));
        }
        numbers.ranges(accepted..numbers.len()).for_each(|rows| self.window.end(block, rows, End::Failed));
        if let (Some(error), None) = (row_error, &refused) {
            self.has_refused = true;
            let (sequence, place) = (block + numbers.get(accepted) as u64, context.options.place);
            let text = format!("row {sequence} of {place} cannot be submitted: {error}; correct the schema");
            self.at.stop(StopReason::Row, text);
        }
        if accepted > 0 {
            self.sent.push_back(Sent { block, rows: numbers, receipts });
        }
        refused
    }
}

/// The rows of a parked table may stay in the source for long. When to look again.
fn look<S: Source>(at: &mut Partition<S>, table: &Option<String>) -> Instant {
    if let Some(table) = table {
        let is_parked = at.context.pipeline.health().parked.iter().any(|parked| parked.table == *table);
        at.set_aside(is_parked);
    }
    Instant::now() + LOOK
}
