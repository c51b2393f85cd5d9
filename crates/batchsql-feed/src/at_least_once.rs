//! Owns the task of one partition that is written at least once: it submits rows in order, follows their outcomes, and
//! settles.
//! Must not know how blocks are made or read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{DynRow, Outcome, Receipt};
use tokio::sync::watch;

use crate::context::{Context, Ending};
use crate::options::FeedSabotage;
use crate::partition::{Found, Partition, Watched};
use crate::rows::LoggedRow;
use crate::source::Source;
use crate::state::PartitionState;
use crate::window::{End, Window};

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
    let at = Partition::new(context, state, source, ending);
    let feed = Feed { at, window: Window::default(), receipts: VecDeque::new(), table: None, has_refused: false };
    feed.run().await
}

struct Feed<S> {
    at: Partition<S>,
    window: Window<DynRow>,
    /// Of the rows in flight, in the order in which they were submitted.
    receipts: VecDeque<(u64, Receipt)>,
    /// The table as the pipeline shows it.
    table: Option<String>,
    /// A row was refused, so that it and those behind it are not submitted by this process.
    has_refused: bool,
}

impl<S: Source> Feed<S> {
    async fn run(mut self) -> S {
        loop {
            self.take_outcomes().await;
            let is_ending = self.at.is_ending();
            if is_ending && self.receipts.is_empty() {
                return self.at.source;
            }
            if !is_ending && self.window.has_failed() {
                // Nothing is read before these rows are known to be written.
                if self.receipts.is_empty() && !self.has_refused {
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

    /// Until something has changed.
    async fn wait(&mut self) {
        let front = self.receipts.front_mut().map(|(_, receipt)| receipt);
        let has_front = front.is_some();
        let looks = has_front || self.at.is_aside();
        let found = tokio::select! {
            _ = async { front.expect("checked by has_front").await }, if has_front => return,
            found = self.at.changed() => found,
            () = tokio::time::sleep(LOOK), if looks => return look(&mut self.at, &self.table),
        };
        self.take(found).await;
    }

    async fn take(&mut self, found: Found) {
        match found {
            Found::Rows(rows) => self.submit_all(rows).await,
            Found::Skipped(first, last) => {
                self.window.push_gap(first, last);
                self.settle().await;
            }
            Found::Nothing => {}
        }
    }

    /// Takes the outcomes that are known, from the front, and settles.
    async fn take_outcomes(&mut self) {
        let (mut rejected, mut lines) = (Vec::new(), String::new());
        while let Some((sequence, receipt)) = self.receipts.front()
            && let Some(outcome) = receipt.try_outcome()
        {
            let sequence = *sequence;
            self.receipts.pop_front();
            match &outcome {
                Outcome::Written | Outcome::Ignored | Outcome::Superseded => self.window.end(sequence, End::Written),
                Outcome::Rejected(_) => {
                    lines.extend(self.at.letter(sequence, &outcome));
                    rejected.push(sequence);
                }
                // Unknown, expired, purged, and what a later version may add.
                _ => self.window.end(sequence, End::Failed),
            }
        }
        if !rejected.is_empty() {
            let end = if self.at.keep_letters(lines, rejected.len()).await { End::Rejected } else { End::Failed };
            rejected.into_iter().for_each(|sequence| self.window.end(sequence, end));
        }
        self.settle().await;
    }

    async fn settle(&mut self) {
        let Some((first, last)) = self.window.settle() else { return };
        self.at.settle(first, last).await;
    }

    /// Submits rows again whose outcome was not known.
    async fn write_again(&mut self) {
        if !self.at.pause().await {
            return;
        }
        let again = self.window.write_again();
        self.at.context.counts.written_again.add(again.len() as u64);
        for sequence in again {
            self.submit(sequence).await;
        }
    }

    async fn submit_all(&mut self, rows: Vec<LoggedRow>) {
        for LoggedRow { sequence, row, key } in rows {
            self.window.push(sequence, row, key);
            self.at.state.has_read(sequence);
            self.submit(sequence).await;
            if self.at.is_stopped() || self.at.is_ending() {
                return;
            }
        }
    }

    /// Submits a row of the window. A row that is not accepted has failed, and stays in the source.
    async fn submit(&mut self, sequence: u64) {
        let row = self.window.row(sequence).expect("rows of the window are submitted");
        self.table.get_or_insert_with(|| batchsql_core::Row::schema(row).table_display().to_owned());
        let context = Arc::clone(&self.at.context);
        if context.options.sabotage == Some(FeedSabotage::SettleEarly) {
            let _ = context.pipeline.submit(row).await;
            self.window.end(sequence, End::Written);
            return self.settle().await;
        }
        let submitted = {
            let accepted = context.pipeline.submit_tracked(row);
            tokio::pin!(accepted);
            loop {
                tokio::select! {
                    // Most rows are accepted at once, without a timer.
                    biased;
                    submitted = &mut accepted => break submitted,
                    // The wait may be long: the table has its share of the buffer already.
                    () = tokio::time::sleep(LOOK) => look(&mut self.at, &self.table),
                }
            }
        };
        match submitted {
            Ok(receipt) => self.receipts.push_back((sequence, receipt)),
            Err(error) => {
                self.window.end(sequence, End::Failed);
                if let Some(error) = error.row_error() {
                    self.has_refused = true;
                    let place = context.options.place;
                    self.at.stop(format!("row {sequence} of {place} cannot be submitted: {error}; correct the schema"));
                }
            }
        }
    }
}

/// The rows of a parked table may stay in the source for long.
fn look<S: Source>(at: &mut Partition<S>, table: &Option<String>) {
    let Some(table) = table else { return };
    let is_parked = at.context.pipeline.health().parked.iter().any(|parked| parked.table == *table);
    at.set_aside(is_parked);
}
