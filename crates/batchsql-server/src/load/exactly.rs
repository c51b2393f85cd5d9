//! Owns how stripes are written with their position in one transaction, so that each row is written once: also after a kill,
//! and after a lost reply.
//! Must not know files.
//!
//! Worked example, records 101 to 104, of which 103 is bad, position 100:
//!
//! ```text
//! step 100 to 104    refused: nothing is written
//! step 100 to 102    committed
//! step 102 to 103    refused alone: it goes to the rejected records
//! step 102 to 104    committed, with row 104; the position has passed record 103
//! ```
//!
//! Where the reason may be that of the table, a row is at fault only if the table accepts another one. A transient error is
//! searched for so too, when it was there for `retry_for`: a trigger may raise it for one row. One of a resource is not: a full disk
//! may have room for some rows.

use std::ops::Range;
use std::time::Duration;

use batchsql::feed::{RowErrors, Search};
use batchsql::{
    BatchSql, Claim, ClaimFrom, Claimed, ErrorClass, OutcomeKind, PartitionKey, Position, SinkError, Step, StepError,
};
use tokio::time::{Instant, sleep};

use crate::exit::{Exit, Failure};
use crate::load::parse::{Parsed, Run};
use crate::load::patience::{FIRST_PAUSE, LONGEST_PAUSE, Patience, Patient};
use crate::load::tally::Tally;

/// So many records are refused alone before only some of the others are tried.
const REFUSED: usize = 64;
/// So many records in a row are not all at fault, if the reason may be the table's.
const SUSPECTS: usize = 4;
/// So many rows behind a run are tried while the table accepts none of it.
const TRIED_BEHIND: usize = 4;
/// Longer than any process runs: `retry_for` has no end below a durable intake.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

pub(crate) struct Exactly {
    db: BatchSql,
    key: PartitionKey,
    owner: String,
    position: Position,
    /// Whether a row was written, so that the table can be. Records that an earlier run has passed count too: it may have been
    /// killed just before the last records of a file, behind which there is nothing to compare them with.
    has_written: bool,
    /// Records that were taken for faulty since then, although none behind them was accepted.
    suspects: usize,
}

/// What became of one try.
enum Tried {
    /// The rows were written, or would have been.
    Accepted,
    /// One of the rows may be at fault.
    Refused(SinkError),
    /// Nothing was written; it may work later. Whether one of the rows may cause it.
    Again(SinkError, bool),
}

impl Exactly {
    /// Claims a position, which begins behind the record `begin` if it is not there. Whoever had it before can write nothing
    /// with it any more.
    ///
    /// # Errors
    /// The table of positions cannot be used.
    pub(crate) async fn claim(db: &BatchSql, key: PartitionKey, owner: &str, begin: u64) -> Result<Self, Failure> {
        let claim = Claim::of(owner).from(ClaimFrom::Anyone).or_begin_at(signed(begin));
        let claimed = db.claim(&key, &claim).await;
        let claimed = claimed.map_err(|error| {
            let text = format!("the position of the file cannot be kept in the database: {error}");
            let is_refused = matches!(error.class(), ErrorClass::Schema | ErrorClass::Permission);
            if is_refused {
                Failure::of_table(format!(
                    "{text}; or keep it in a file with --at-least-once (at_least_once of a source)"
                ))
            } else {
                Failure::unavailable(text)
            }
        })?;
        let position = match claimed {
            Claimed::Position(position) => position,
            Claimed::Ahead { position, moved_to } => return Err(is_ahead(&key, position, moved_to)),
            _ => return Err(Failure::failed("the position of the file cannot be claimed")),
        };
        let has_written = position.sequence > signed(begin);
        Ok(Self { db: db.clone(), key, owner: owner.to_owned(), position, has_written, suspects: 0 })
    }

    /// Claims the position once more.
    ///
    /// # Errors
    /// Another one has claimed it, or the database cannot be asked.
    pub(crate) async fn claim_again(&mut self) -> Result<(), Failure> {
        self.resolve(self.position.sequence).await.map(drop)
    }

    pub(crate) fn reached(&self) -> u64 {
        u64::try_from(self.position.sequence).unwrap_or(0)
    }

    pub(crate) async fn write(&mut self, parsed: &Parsed, tally: &Tally) -> Result<(), Failure> {
        for number in 0..parsed.runs.len() {
            self.write_run(parsed, number, tally).await?;
        }
        let last = parsed.stripe.last();
        if self.reached() < last {
            self.advance(last).await?;
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.retry_for()
    }

    fn retry_for(&self) -> Duration {
        self.db.config().retry_for.min(FAR)
    }

    /// Writes a run of a stripe, and searches it for the rows that are at fault.
    async fn write_run(&mut self, parsed: &Parsed, number: usize, tally: &Tally) -> Result<(), Failure> {
        let run = &parsed.runs[number];
        let (rows, count) = (run.rows.rows(), run.records.len());
        let search = Search::new(count, self.db.isolation_budget(rows).min(REFUSED), false);
        let mut search = search.judging(RowErrors::AreOfRow);
        let mut patience = Patience::new(self.retry_for(), count);
        // Since the last row that was written.
        let mut rejected = 0;
        loop {
            let Some(next) = search.next() else {
                if !search.blames_table() {
                    return Ok(());
                }
                let failure = search.last_error().map_or_else(|| Failure::failed(search.why()), blamed);
                if !self.another_is_accepted(parsed, number, tally).await?
                    && !self.are_at_fault(self.left(run) - rejected, &failure)
                {
                    return Err(failure);
                }
                search.another_was_accepted();
                continue;
            };
            match self.try_once(run, next.rows.clone(), next.commits, tally).await? {
                Tried::Accepted => {
                    if next.commits {
                        (self.has_written, self.suspects, rejected) = (true, 0, 0);
                    }
                    patience.accepted();
                    search.accepted(next);
                }
                Tried::Refused(error) => search.refused(next, error),
                Tried::Again(error, may_be_of_row) => match patience.after(&next.rows, may_be_of_row, Instant::now()) {
                    Patient::Tries(pause) => {
                        tracing::warn!(%error, "rows were not written; trying again");
                        sleep(pause).await;
                        search.put_back(next.rows, false);
                    }
                    Patient::Searches => search.refused(next, error),
                    Patient::GivesUp => return Err(given_up(&error)),
                },
            }
            for (row, error) in search.take_faulty() {
                let record = run.records[row];
                let (line, text) = parsed.stripe.text(record);
                self.db.reject_step(rows, row, &error).await;
                tally.add(OutcomeKind::Rejected, 1);
                tally.reject(&[(line, record, error.to_string(), text)])?;
                patience.rejected();
                rejected += 1;
            }
        }
    }

    /// Whether the table would accept one of some rows of the runs behind this one.
    async fn another_is_accepted(&mut self, parsed: &Parsed, number: usize, tally: &Tally) -> Result<bool, Failure> {
        let behind = &parsed.runs[number + 1..];
        let mut last = None;
        for part in 0..TRIED_BEHIND {
            let Some(run) = behind.get(part * behind.len() / TRIED_BEHIND) else { break };
            let row = part * run.records.len() / TRIED_BEHIND;
            if last.replace(run.records[row]) == Some(run.records[row]) {
                continue;
            }
            if matches!(self.try_once(run, row..row + 1, false, tally).await?, Tried::Accepted) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Records of a run that the position has not passed.
    fn left(&self, run: &Run) -> usize {
        run.records.len() - run.records.partition_point(|record| *record <= self.reached())
    }

    /// Whether so few records behind those that were written are at fault, if none is left in this stripe to compare them with:
    /// the position passes them at its end.
    fn are_at_fault(&mut self, records: usize, failure: &Failure) -> bool {
        self.suspects += records;
        self.has_written && self.suspects < SUSPECTS && failure.exit != Exit::Unavailable
    }

    async fn try_once(
        &mut self,
        run: &Run,
        rows: Range<usize>,
        commits: bool,
        tally: &Tally,
    ) -> Result<Tried, Failure> {
        let to = signed(run.records[rows.end - 1]);
        let rows = run.rows.rows().slice(rows);
        let step = Step::new(self.position, to);
        let step = if commits { step } else { step.rolled_back() };
        let StepError { error, was_sent, .. } = match self.db.write_step(rows, &step).await {
            Ok(counts) if commits => {
                self.position.sequence = to;
                for kind in [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded] {
                    tally.add(kind, counts.get(kind));
                }
                return Ok(Tried::Accepted);
            }
            Ok(_) => return Ok(Tried::Accepted),
            Err(failed) => failed,
        };
        if error.is_fenced() {
            return Err(fenced());
        }
        match error.class() {
            ErrorClass::Transient if !was_sent => Ok(Tried::Again(error, false)),
            ErrorClass::Resource => Ok(Tried::Again(error, false)),
            // Without an answer, what was sent may still be under way: the claim ends it, and knows what became of it. One that
            // is rolled back moves nothing.
            ErrorClass::Transient | ErrorClass::Unknown => {
                if self.resolve(to).await? {
                    self.db.step_was_written(rows);
                    tally.add(OutcomeKind::Written, rows.len() as u64);
                    return Ok(Tried::Accepted);
                }
                Ok(Tried::Again(error, true))
            }
            // A row that is too large may be refused before it is sent.
            ErrorClass::Row | ErrorClass::Size => Ok(Tried::Refused(error)),
            _ if was_sent => Ok(Tried::Refused(error)),
            _ => Err(not_written(&error)),
        }
    }

    /// Whether a step to this record was committed.
    async fn resolve(&mut self, to: i64) -> Result<bool, Failure> {
        let deadline = self.deadline();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.db.claim(&self.key, &Claim::of(&self.owner)).await {
                Ok(Claimed::Position(position)) => {
                    let is_there = position.sequence == to;
                    self.position = position;
                    return Ok(is_there);
                }
                Ok(Claimed::Ahead { position, moved_to }) => return Err(is_ahead(&self.key, position, moved_to)),
                Ok(_) => return Err(fenced()),
                Err(error) => error,
            };
            if Instant::now() + pause > deadline {
                return Err(given_up(&error));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Moves the position behind records that are no rows.
    ///
    /// # Errors
    /// Another one has claimed it, or the database cannot be written.
    pub(crate) async fn advance(&mut self, to: u64) -> Result<(), Failure> {
        let deadline = self.deadline();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.db.advance(&Step::new(self.position, signed(to))).await {
                Ok(()) => {
                    self.position.sequence = signed(to);
                    return Ok(());
                }
                Err(error) if error.is_fenced() => return Err(fenced()),
                Err(error) => error,
            };
            if self.resolve(signed(to)).await? {
                return Ok(());
            }
            if Instant::now() + pause > deadline {
                return Err(given_up(&error));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn signed(record: u64) -> i64 {
    i64::try_from(record).unwrap_or(i64::MAX)
}

fn not_written(error: &SinkError) -> Failure {
    let text = format!("the table cannot be written: {error}");
    match error.class() {
        ErrorClass::Schema | ErrorClass::Permission => Failure::of_table(text),
        _ => Failure::failed(text),
    }
}

/// The table has accepted no row.
fn blamed(error: &SinkError) -> Failure {
    match error.class() {
        ErrorClass::Transient | ErrorClass::Unknown | ErrorClass::Resource => given_up(error),
        _ => not_written(error),
    }
}

/// Somebody else has moved the position of a part of the file.
fn is_ahead(key: &PartitionKey, position: Position, moved_to: i64) -> Failure {
    let (sequence, place) = (position.sequence, key.row_of_position());
    Failure::of_table(format!(
        "the position of the file in batchsql_positions is {sequence}, but it was moved only to {moved_to} with its records: it was \
         changed from outside, and records up to it would be passed over; set it back to {moved_to}: UPDATE batchsql_positions SET \
         sequence = moved_to WHERE {place}; or set moved_to to {sequence} too, and they are not loaded"
    ))
}

fn fenced() -> Failure {
    Failure::of_other_process("another process loads this file now; what this one has written is written once")
}

fn given_up(error: &SinkError) -> Failure {
    Failure::unavailable(format!(
        "the database could not be written for retry_for: {error}; run the command again to go on"
    ))
}
