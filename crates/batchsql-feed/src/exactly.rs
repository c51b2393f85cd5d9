//! Owns the task of one partition that is written exactly once: each transaction moves the position of the partition in the
//! database from the last row of the transaction before to its own last row.
//! Must not know how blocks are read, or how a database keeps positions.
//!
//! Worked example, rows 101 to 104, of which 103 is bad, position 100:
//!
//! ```text
//! step 100 to 104    refused: nothing is written
//! step 100 to 102    committed
//! step 102 to 103    refused alone: it goes to the dead letters, because another row was accepted
//! step 102 to 104    committed, with row 104; the position has passed row 103
//! ```
//!
//! When a reply is lost, the partition is claimed again: the position says whether the step was committed, and the new epoch
//! keeps what is still under way from being committed later.

use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{PartitionKey, Rows, SharedRows, SinkError, StopReason};
use tokio::sync::watch;

use crate::backlog::{Backlog, Front};
use crate::claimed_position::{ClaimedPosition, Tried};
use crate::context::{Context, Ending};
use crate::misfits::Misfit;
use crate::options::Misfits;
use crate::partition::{Partition, Watched};
use crate::search::Search;
use crate::source::Source;
use crate::state::PartitionState;

/// How often a table that cannot be written is tried.
const PROBE: Duration = Duration::from_secs(5);
/// So many rows behind the front are tried at a time while the table accepts none.
const TRIED_BEHIND: usize = 4;

/// Runs until it is ended, and returns the source.
pub(crate) async fn run<S: Source>(
    context: Arc<Context>,
    state: Arc<PartitionState>,
    source: S,
    ending: watch::Receiver<Ending>,
) -> S {
    let _watched = Watched { context: Arc::clone(&context), state: Arc::clone(&state) };
    let options = &context.options;
    let name = options.exactly_once.as_deref().unwrap_or_default();
    let key = PartitionKey::new(name, &*options.incarnation, state.table(), state.partition());
    let backlog = Backlog::new(Arc::clone(&context));
    let at = Partition::new(context, state, source, ending);
    let feed = Feed {
        at,
        position: ClaimedPosition::new(key),
        backlog,
        is_blocked: false,
        is_blamed: false,
        rejected: 0,
        accepts: None,
        looks: 0,
    };
    feed.run().await
}

struct Feed<S> {
    at: Partition<S>,
    position: ClaimedPosition,
    backlog: Backlog,
    /// The row at the front cannot be written by this process.
    is_blocked: bool,
    /// The table accepted none of the rows that were tried last.
    is_blamed: bool,
    /// Rows that were rejected since a row was accepted.
    rejected: usize,
    /// The row behind the front that the table would have accepted last.
    accepts: Option<u64>,
    /// How often rows behind the front were tried alone: other ones each time.
    looks: usize,
}

impl<S: Source> Feed<S> {
    async fn run(mut self) -> S {
        while !self.at.is_ending() && !self.is_over() {
            if !self.position.is_claimed() {
                // The source begins anew behind the position: what was read before would be there twice.
                self.backlog.clear();
                if let Some(passed) = self.position.claim(&mut self.at).await {
                    self.backlog.pass(passed);
                }
                continue;
            }
            if self.is_blocked {
                let found = self.at.changed().await;
                self.backlog.take(found);
            } else if self.at.is_ready() && !self.backlog.is_enough(self.is_blamed) {
                let found = self.at.read().await;
                self.backlog.take(found);
            } else if self.backlog.is_empty() && self.backlog.passed() <= self.position.reached() {
                let found = self.at.changed().await;
                self.backlog.take(found);
            } else {
                self.write_front().await;
            }
        }
        self.at.source
    }

    /// Another process has the partition, or its position makes no sense.
    fn is_over(&self) -> bool {
        !self.position.is_claimed() && self.at.is_stopped()
    }

    /// Writes rows of one schema from the front.
    async fn write_front(&mut self) {
        self.backlog.pass(self.position.reached());
        self.backlog.drop_passed();
        let (rows, sequences) = match self.backlog.front() {
            Front::Rows(rows, sequences) => (rows, sequences),
            Front::Nothing => return self.advance().await,
            Front::Refused(misfits) => return self.refuse(misfits).await,
        };
        let budget = self.at.context.pipeline.isolation_budget(rows.rows()).saturating_sub(self.rejected);
        let mut search = Search::new(sequences.len(), budget, self.is_blamed);
        let mut failures = 0;
        loop {
            if self.at.is_ending() {
                return;
            }
            let Some(next) = search.next() else {
                // A row behind these may show that the table accepts rows.
                if search.blames_table() && self.another_is_accepted(rows.rows(), &sequences).await {
                    search.another_was_accepted();
                    continue;
                }
                break;
            };
            let part = rows.rows().slice(next.rows.clone());
            match self.position.try_step(&mut self.at, part, sequences[next.rows.end - 1], next.commits).await {
                Tried::Accepted => {
                    (self.rejected, failures) = (0, 0);
                    self.at.accepted(sequences[next.rows.end - 1]);
                    search.accepted(next);
                }
                Tried::Refused(error) => search.refused(next, error),
                Tried::Table(error) => return self.wait_for_table(&error.to_string()).await,
                Tried::Again(error, may_be_slow) => {
                    self.position.fails(&mut self.at, "rows were not written", "its rows were not written", &error);
                    failures += usize::from(may_be_slow);
                    // Once may be chance.
                    search.put_back(next.rows, may_be_slow && failures > 1);
                    if !self.at.pause().await {
                        return;
                    }
                }
                Tried::Over => return,
            }
            if !self.reject_faulty(search.take_faulty(), &rows, &sequences).await {
                return;
            }
        }
        if search.blames_table() {
            return self.wait_for_table(&search.why()).await;
        }
        self.is_blamed = false;
        self.at.set_aside(false);
        self.at.goes_on();
    }

    /// Ends rows that no step can write, or stops at them.
    async fn refuse(&mut self, mut misfits: Vec<Misfit>) {
        let Some(first) = misfits.first() else { return };
        let may_reject = match self.at.context.options.misfits {
            Misfits::Stop => 0,
            Misfits::Reject => self.at.may_reject(first.rows.rows()),
        };
        if may_reject == 0 {
            if self.backlog.passed() > self.position.reached() {
                // What ended before them is not to come again after a restart.
                return self.advance().await;
            }
            self.is_blocked = true;
            // None of it is written by this process.
            self.backlog.clear();
            match self.at.context.options.misfits {
                Misfits::Stop => {
                    let (sequence, place, error) = (first.sequence(), self.at.context.options.place, &first.error);
                    let text = format!(
                        "row {sequence} of {place} cannot be written: {error}; correct the schema or the limit"
                    );
                    self.at.stop(StopReason::Row, text);
                }
                Misfits::Reject => self.at.stop_at_misfit(first),
            }
            return;
        }
        // The database is not asked for these rows. Another process may have the partition and another schema, and may have
        // written them.
        if self.position.resolve(&mut self.at, None).await.is_none() {
            return;
        }
        self.at.goes_on();
        misfits.truncate(may_reject);
        let last = misfits.last().map_or(0, Misfit::sequence);
        if self.at.reject(&misfits).await {
            self.backlog.pass(last);
        }
    }

    /// Moves faulty rows to the dead letters. False: the feed ends.
    async fn reject_faulty(&mut self, faulty: Vec<(usize, SinkError)>, rows: &SharedRows, sequences: &[u64]) -> bool {
        if faulty.is_empty() {
            return true;
        }
        let mut lines = String::new();
        for (row, error) in &faulty {
            let outcome = self.at.context.pipeline.reject_step(rows.rows(), *row, error).await;
            lines.extend(self.at.letter(sequences[*row], &outcome));
        }
        if !self.at.keep_letters(lines, faulty.len()).await {
            return false;
        }
        // Only now: what is passed is never read again.
        faulty.iter().for_each(|(row, _)| self.backlog.pass(sequences[*row]));
        self.rejected += faulty.len();
        true
    }

    /// Whether a row behind these would be accepted: the first one with another schema, or some of all.
    async fn another_is_accepted(&mut self, rows: Rows<'_>, sequences: &[u64]) -> bool {
        let last = sequences.last().copied().unwrap_or(0);
        let behind = self.backlog.rows_waiting().saturating_sub(sequences.len()).max(1);
        let known = self.accepts.take().filter(|sequence| *sequence > last);
        let of_other = self.backlog.row_behind(last, |schema| schema != rows.schema(), 0);
        let places = (0..TRIED_BEHIND).rev().map(|part| (self.looks + part * behind / TRIED_BEHIND) % behind);
        let any: Vec<u64> = places.filter_map(|place| self.backlog.row_behind(last, |_| true, place)).collect();
        self.looks = self.looks.wrapping_add(1);
        for sequence in known.into_iter().chain(of_other).chain(any) {
            let Some(alone) = self.backlog.alone(sequence, &self.at.context.pipeline) else { continue };
            if matches!(self.position.try_step(&mut self.at, alone.rows(), sequence, false).await, Tried::Accepted) {
                self.accepts = Some(sequence);
                return true;
            }
        }
        false
    }

    /// Moves the position behind rows that are not written.
    async fn advance(&mut self) {
        self.position.advance(&mut self.at, self.backlog.passed()).await;
    }

    /// Shows that the table cannot be written, and waits before the next try.
    async fn wait_for_table(&mut self, why: &str) {
        self.is_blamed = true;
        self.at.waits(format!("its table cannot be written: {why}; its rows wait, and it is tried every {PROBE:?}"));
        self.at.set_aside(true);
        self.at.sleep(PROBE).await;
        // A row that came meanwhile may be accepted.
        self.at.look_for_more();
    }
}
