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

use batchsql_core::{
    Claim, Claimed, ErrorClass, PartitionKey, Position, Queue, RowError, Rows, SharedRows, SinkError, Step, StopReason,
};
use tokio::sync::watch;

use crate::context::{Context, Ending};
use crate::misfits::Misfit;
use crate::options::Misfits;
use crate::partition::{Found, Partition, Watched};
use crate::rows::StoredRows;
use crate::search::Search;
use crate::source::{Begin, NotClaimed, Refusal, Source};
use crate::state::PartitionState;

/// So many repeats without a row that was written are shown.
const SHOWN_REPEATS: u32 = 6;
/// How often a table that cannot be written is tried.
const PROBE: Duration = Duration::from_secs(5);
/// So many rows more than a step takes are read while the table accepts none, and so many of them are tried at a time.
const ROWS_BEHIND: usize = 4_096;
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
    let at = Partition::new(context, state, source, ending);
    let feed = Feed {
        at,
        key,
        owner: String::new(),
        position: None,
        waiting: Queue::new(),
        passed: 0,
        is_blocked: false,
        is_blamed: false,
        rejected: 0,
        accepts: None,
        looks: 0,
    };
    feed.run().await
}

/// What was read and is behind the position.
enum Waiting {
    /// The rows of a block from this number on.
    Rows(StoredRows, usize),
    /// What is up to this sequence needs no write.
    Skipped(u64),
}

struct Feed<S> {
    at: Partition<S>,
    key: PartitionKey,
    /// As of the last claim.
    owner: String,
    /// `None` until the partition is claimed.
    position: Option<Position>,
    waiting: Queue<Waiting>,
    /// Rows up to this one need not be written: the next step passes them.
    passed: u64,
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

/// What is at the front.
enum Front {
    /// Rows of one schema, with their sequences.
    Rows(SharedRows, Vec<u64>),
    /// Rows of a block that no step can write.
    Refused(Vec<Misfit>),
    /// Nothing that is to be written.
    Nothing,
}

/// How a try of rows ended.
enum Tried {
    Accepted,
    /// One of the rows may be at fault.
    Refused(SinkError),
    /// The table cannot be written.
    Table(SinkError),
    /// Nothing was written; perhaps because so many rows take too long.
    Again(SinkError, bool),
    /// The feed ends, or another process writes the partition.
    Over,
}

impl<S: Source> Feed<S> {
    async fn run(mut self) -> S {
        while !self.at.is_ending() && !self.is_over() {
            if self.position.is_none() {
                self.claim().await;
                continue;
            }
            let enough = self.waiting.front().map_or(1, |front| match front {
                Waiting::Rows(stored, _) => self.at.context.pipeline.max_step_rows(stored.rows.rows().schema()),
                Waiting::Skipped(_) => 1,
            });
            // The rows of one step may all be bad: others show whether the table accepts any.
            let enough = if self.is_blamed { enough.saturating_add(ROWS_BEHIND) } else { enough };
            if self.is_blocked {
                let found = self.at.changed().await;
                self.take(found);
            } else if self.at.is_ready() && self.rows_waiting() < enough {
                let found = self.at.read().await;
                self.take(found);
            } else if self.waiting.is_empty() && self.passed <= self.reached() {
                let found = self.at.changed().await;
                self.take(found);
            } else {
                self.write_front().await;
            }
        }
        self.at.source
    }

    /// Another process has the partition, or its position makes no sense.
    fn is_over(&self) -> bool {
        self.position.is_none() && self.at.is_stopped()
    }

    fn take(&mut self, found: Found) {
        match found {
            Found::Rows(pieces) => self.waiting.extend(pieces.into_iter().map(|stored| Waiting::Rows(stored, 0))),
            Found::Skipped(_, last) => self.waiting.push_back(Waiting::Skipped(last)),
            Found::Nothing => {}
        }
    }

    /// Claims the partition when the task begins, and compares the position with the source.
    async fn claim(&mut self) {
        // The source begins anew behind the position: what was read before would be there twice.
        self.waiting.clear();
        self.passed = 0;
        self.at.begins_anew();
        let claim = match self.at.source.claim().await {
            Ok(claim) => claim,
            Err(refusal) => return self.at.refused(refusal).await,
        };
        self.owner.clone_from(&claim.owner);
        match self.ask(&claim).await {
            None => {}
            Some(Ok(Claimed::Position(position))) => self.begin_at(position).await,
            Some(Ok(Claimed::Missing)) => self.not_claimed(NotClaimed::Missing).await,
            Some(Ok(_)) => self.not_claimed(NotClaimed::Other).await,
            Some(Err(error)) => {
                // Some errors do not name the table.
                let text = format!("its position in batchsql_positions cannot be claimed: {error}; trying again");
                self.at.refused(Refusal::Wait(text)).await;
            }
        }
    }

    async fn not_claimed(&mut self, why: NotClaimed) {
        let refusal = self.at.source.not_claimed(why);
        self.at.refused(refusal).await;
    }

    /// Asks the database for the partition. `None`: the feed ends.
    async fn ask(&mut self, claim: &Claim) -> Option<Result<Claimed, SinkError>> {
        let context = Arc::clone(&self.at.context);
        let asked = async {
            let _permit = context.claims.acquire().await;
            context.pipeline.claim(&self.key, claim).await
        };
        tokio::select! {
            claimed = asked => Some(claimed),
            () = self.at.ends_now() => None,
        }
    }

    /// The partition is claimed. Its position and what the source has settled differ after a crash, a restored database, or a
    /// source that has lost its end.
    async fn begin_at(&mut self, position: Position) {
        let reached = u64::try_from(position.sequence).unwrap_or(0);
        let Begin { passed, missing } = match self.at.source.begin_at(reached).await {
            Ok(begin) => begin,
            Err(refusal) => return self.at.refused(refusal).await,
        };
        self.at.goes_on();
        self.at.state.hold(true);
        self.position = Some(position);
        if missing > 0 {
            tracing::error!(partition = %self.key, missing, "rows may be missing in the database; going on");
            self.at.counts.missing.add(missing);
        }
        self.passed = self.passed.max(passed);
        let settled = self.at.state.settled();
        if reached > settled {
            // Written by the process before, which did not get to settle it.
            self.at.settle(settled + 1, reached).await;
        }
    }

    fn reached(&self) -> u64 {
        self.position.map_or(0, |position| u64::try_from(position.sequence).unwrap_or(0))
    }

    /// Writes rows of one schema from the front.
    async fn write_front(&mut self) {
        self.drop_passed();
        let (rows, sequences) = match self.front() {
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
            match self.try_step(part, sequences[next.rows.end - 1], next.commits).await {
                Tried::Accepted => {
                    (self.rejected, failures) = (0, 0);
                    self.at.accepted(sequences[next.rows.end - 1]);
                    search.accepted(next);
                }
                Tried::Refused(error) => search.refused(next, error),
                Tried::Table(error) => return self.wait_for_table(&error.to_string()).await,
                Tried::Again(error, may_be_slow) => {
                    self.fails("rows were not written", "its rows were not written", &error);
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
            if self.passed > self.reached() {
                // What ended before them is not to come again after a restart.
                return self.advance().await;
            }
            self.is_blocked = true;
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
        if self.resolve(self.reached()).await.is_none() {
            return;
        }
        self.at.goes_on();
        misfits.truncate(may_reject);
        let last = misfits.last().map_or(0, Misfit::sequence);
        if self.at.reject(&misfits).await {
            self.passed = self.passed.max(last);
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
        self.passed = faulty.iter().fold(self.passed, |passed, (row, _)| passed.max(sequences[*row]));
        self.rejected += faulty.len();
        true
    }

    /// Whether a row behind these would be accepted: the first one with another schema, or some of all.
    async fn another_is_accepted(&mut self, rows: Rows<'_>, sequences: &[u64]) -> bool {
        let last = sequences.last().copied().unwrap_or(0);
        let behind = self.rows_waiting().saturating_sub(sequences.len()).max(1);
        let known = self.accepts.take().filter(|sequence| *sequence > last);
        let of_other = self.row_behind(last, |stored| stored.rows.rows().schema() != rows.schema(), 0);
        let places = (0..TRIED_BEHIND).rev().map(|part| (self.looks + part * behind / TRIED_BEHIND) % behind);
        let any: Vec<u64> = places.filter_map(|place| self.row_behind(last, |_| true, place)).collect();
        self.looks = self.looks.wrapping_add(1);
        for sequence in known.into_iter().chain(of_other).chain(any) {
            if self.is_accepted(sequence).await {
                self.accepts = Some(sequence);
                return true;
            }
        }
        false
    }

    /// The row at this place among those behind `last` of blocks that are wanted.
    fn row_behind(&self, last: u64, is_wanted: impl Fn(&StoredRows) -> bool, place: usize) -> Option<u64> {
        let wanted = self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Rows(stored, from) if !stored.is_refused() && is_wanted(stored) => Some((stored, *from)),
            _ => None,
        });
        let rows = wanted.flat_map(|(stored, from)| (from..stored.len()).map(|row| stored.first + row as u64));
        rows.filter(|sequence| *sequence > last).nth(place)
    }

    /// Whether a row that waits would be accepted alone.
    async fn is_accepted(&mut self, sequence: u64) -> bool {
        let holds = |stored: &StoredRows| stored.first <= sequence && sequence <= stored.last();
        let Some(stored) = self.waiting.iter().find_map(|waiting| match waiting {
            Waiting::Rows(stored, _) if holds(stored) => Some(stored),
            _ => None,
        }) else {
            return false;
        };
        let view = stored.rows.rows().row((sequence - stored.first) as usize);
        let Ok(mut alone) = self.at.context.pipeline.row_buffer(view.schema()) else { return false };
        if alone.push(&view).is_err() {
            return false;
        }
        matches!(self.try_step(alone.into_rows().rows(), sequence, false).await, Tried::Accepted)
    }

    /// How many rows wait.
    fn rows_waiting(&self) -> usize {
        let rows = |waiting: &Waiting| match waiting {
            Waiting::Rows(stored, from) => stored.len() - from,
            Waiting::Skipped(_) => 1,
        };
        self.waiting.iter().map(rows).sum()
    }

    /// Removes what is behind the position or passed.
    fn drop_passed(&mut self) {
        self.passed = self.passed.max(self.reached());
        while let Some(front) = self.waiting.front_mut() {
            match front {
                Waiting::Skipped(last) => self.passed = self.passed.max(*last),
                Waiting::Rows(stored, _) if stored.last() <= self.passed => {}
                Waiting::Rows(stored, from) => {
                    let passed = (self.passed + 1).saturating_sub(stored.first);
                    *from = usize::try_from(passed).map_or(*from, |passed| passed.max(*from));
                    break;
                }
            }
            self.waiting.pop_front();
        }
    }

    /// The rows of one schema at the front.
    fn front(&self) -> Front {
        let Some(Waiting::Rows(first, from)) = self.waiting.front() else { return Front::Nothing };
        let (pipeline, schema) = (&self.at.context.pipeline, first.rows.rows().schema());
        if first.is_refused() {
            return Front::Refused(first.misfits_from(*from).collect());
        }
        let mut rows = match pipeline.row_buffer(schema) {
            Ok(rows) => rows,
            Err(error) => {
                let error = row_refused(&error);
                return Front::Refused((*from..first.len()).map(|row| first.misfit(row, error.clone())).collect());
            }
        };
        let (mut sequences, mut misfits) = (Vec::new(), Vec::new());
        let most = pipeline.max_step_rows(schema);
        'blocks: for waiting in self.waiting.iter() {
            let Waiting::Rows(stored, from) = waiting else { break };
            let views = stored.rows.rows();
            if views.schema() != schema || stored.is_refused() {
                break;
            }
            for row in *from..stored.len().min(from + most - sequences.len()) {
                match rows.push(&views.row(row)) {
                    Ok(()) if misfits.is_empty() => sequences.push(stored.first + row as u64),
                    // Those before it end first.
                    Ok(()) => break 'blocks,
                    Err(_) if !sequences.is_empty() => break 'blocks,
                    Err(error) => misfits.push(stored.misfit(row, row_refused(&error))),
                }
            }
            if !misfits.is_empty() {
                break;
            }
        }
        if misfits.is_empty() { Front::Rows(rows.into_rows(), sequences) } else { Front::Refused(misfits) }
    }

    /// Moves the position behind rows that are not written.
    async fn advance(&mut self) {
        let Some(position) = self.position else { return };
        if self.passed <= self.reached() {
            return;
        }
        let step = Step::new(position, signed(self.passed));
        let context = Arc::clone(&self.at.context);
        let advance = async {
            let _permit = context.steps.acquire().await;
            context.pipeline.advance(&step).await
        };
        let advanced = tokio::select! {
            advanced = advance => advanced,
            () = self.at.ends_now() => return,
        };
        match advanced {
            Ok(()) => self.has_reached(self.passed).await,
            Err(error) => {
                if self.resolve(self.passed).await == Some(false) {
                    self.fails("a position was not moved", "its position was not moved", &unmoved(error));
                    self.at.pause().await;
                }
            }
        }
    }

    /// Something is tried again: a warning `said`, and after some repeats what the partition waits for, `shown`.
    fn fails(&mut self, said: &str, shown: &str, error: &SinkError) {
        if self.at.repeats() >= SHOWN_REPEATS {
            self.at.waits(format!("{shown}: {error}; trying again"));
        } else {
            tracing::warn!(%error, partition = %self.key, "{said}; trying again");
        }
    }

    /// Writes rows in one transaction with the position, or finds out whether they would be written.
    async fn try_step(&mut self, rows: Rows<'_>, to: u64, commits: bool) -> Tried {
        let Some(position) = self.position else { return Tried::Over };
        let mut step = Step::new(position, signed(to));
        if !commits {
            step = step.rolled_back();
        }
        let context = Arc::clone(&self.at.context);
        let write = async {
            let _permit = context.steps.acquire().await;
            context.pipeline.write_step(rows, &step).await
        };
        let written = tokio::select! {
            written = write => written,
            // The next process asks the database what became of it.
            () = self.at.ends_now() => return Tried::Over,
        };
        let failed = match written {
            Ok(_) if commits => {
                self.at.counts.written.add(rows.len() as u64);
                self.has_reached(to).await;
                return Tried::Accepted;
            }
            Ok(_) => return Tried::Accepted,
            Err(failed) => failed,
        };
        let error = failed.error;
        match error.class() {
            ErrorClass::Transient if !failed.was_sent => Tried::Again(error, false),
            ErrorClass::Resource => Tried::Again(error, false),
            // Without an answer, what was sent may still be under way, and hold locks: the claim ends it.
            ErrorClass::Unknown | ErrorClass::Transient => self.resolved(rows, to, commits, error).await,
            _ if failed.was_sent => Tried::Refused(error),
            _ => Tried::Table(error),
        }
    }

    /// What became of a step whose reply was lost.
    async fn resolved(&mut self, rows: Rows<'_>, to: u64, commits: bool, error: SinkError) -> Tried {
        match self.resolve(to).await {
            // A step that is rolled back moves nothing.
            Some(true) if commits => {
                self.at.context.pipeline.step_was_written(rows);
                self.at.counts.written.add(rows.len() as u64);
                Tried::Accepted
            }
            Some(_) => {
                self.at.counts.written_again.add(rows.len() as u64);
                Tried::Again(unmoved(error), true)
            }
            None => Tried::Over,
        }
    }

    /// Claims the partition again, and returns whether it has reached `to`. `None`: the feed ends, or the partition has
    /// another owner.
    async fn resolve(&mut self, to: u64) -> Option<bool> {
        let claim = Claim::of(&*self.owner);
        loop {
            match self.ask(&claim).await? {
                Ok(Claimed::Position(position)) => {
                    let before = self.reached();
                    let now = u64::try_from(position.sequence).unwrap_or(0);
                    self.position = Some(Position { sequence: signed(before), ..position });
                    if now == to && now != before {
                        self.has_reached(to).await;
                        return Some(true);
                    }
                    if now == before {
                        return Some(false);
                    }
                    self.loses_position();
                    self.stop_at_change(before, to, now).await;
                    return None;
                }
                Ok(Claimed::Missing) => {
                    self.loses_position();
                    let text = "its position in the database is gone: the table batchsql_positions was made anew or restored; \
                                start the program again";
                    self.at.stop(StopReason::Position, text.to_owned());
                    return None;
                }
                Ok(_) => {
                    self.loses_position();
                    self.not_claimed(NotClaimed::Other).await;
                    return None;
                }
                Err(error) => {
                    self.at.waits(format!("it is not known yet whether its rows were written: {error}; trying again"));
                    if !self.at.pause().await {
                        return None;
                    }
                }
            }
        }
    }

    /// Stops because the position was changed from outside.
    async fn stop_at_change(&mut self, before: u64, to: u64, now: u64) {
        let found = format!(
            "its position in the database is {now}, where {before} or {to} was expected: it was changed from outside"
        );
        let text = if now > to {
            self.at.source.found_ahead(before, now).await;
            format!(
                "{found}; set it back to {before} in batchsql_positions before the program starts again: rows up to {now} that are \
                 not in the database would be passed over"
            )
        } else {
            format!("{found}, or the database was restored from a backup; start the program again")
        };
        self.at.stop(StopReason::Position, text);
    }

    /// The partition is not claimed any more.
    fn loses_position(&mut self) {
        self.at.state.hold(false);
        self.position = None;
    }

    /// The position was moved.
    async fn has_reached(&mut self, to: u64) {
        let Some(position) = &mut self.position else { return };
        position.sequence = signed(to);
        let settled = self.at.state.settled();
        if to > settled {
            self.at.settle(settled + 1, to).await;
        }
        self.passed = self.passed.max(to);
        self.at.goes_on();
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

/// The error of a step, when the partition was claimed again and the position is as before: it is not fenced.
fn unmoved(error: SinkError) -> SinkError {
    if !error.is_fenced() {
        return error;
    }
    let text = "the statement that moves the position changes nothing, although no other process has the partition; a trigger or a \
                rule of batchsql_positions may keep it from that";
    SinkError::new(error.class(), text)
}

/// The row is refused before it is sent.
fn row_refused(error: &RowError) -> SinkError {
    SinkError::new(ErrorClass::Row, error.to_string())
}

fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
