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

use std::time::Duration;

use batchsql::{
    BatchSql, Claim, ClaimFrom, Claimed, ErrorClass, OutcomeKind, PartitionKey, Position, SinkError, Step, StepError,
};
use tokio::time::{Instant, sleep};

use crate::exit::Failure;
use crate::load::parse::{Parsed, Run};
use crate::load::tally::Tally;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// So many records in a row are not all at fault, if the reason may be the table's.
const SUSPECTS: usize = 4;
/// Longer than any process runs: `retry_for` has no end below a durable intake.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

pub(crate) struct Exactly {
    db: BatchSql,
    key: PartitionKey,
    owner: String,
    position: Position,
    /// Whether a row was written, so that the table can be.
    has_written: bool,
    /// Records since the last row that was written, which were refused alone for a reason that may be the table's.
    suspects: usize,
}

/// What became of one try.
enum Tried {
    Written,
    /// One of the rows may be at fault.
    Refused(SinkError),
    /// Nothing was written; it may work later.
    Again(SinkError),
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
        let Some(position) = claimed.position() else {
            return Err(Failure::failed("the position of the file cannot be claimed"));
        };
        Ok(Self { db: db.clone(), key, owner: owner.to_owned(), position, has_written: false, suspects: 0 })
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
        for run in &parsed.runs {
            self.write_run(parsed, run, tally).await?;
        }
        let last = parsed.stripe.last();
        if self.reached() < last {
            self.advance(last).await?;
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.db.config().retry_for.min(FAR)
    }

    async fn write_run(&mut self, parsed: &Parsed, run: &Run, tally: &Tally) -> Result<(), Failure> {
        // The part at the end is the next one.
        let mut parts = vec![(0, run.records.len())];
        while let Some((begin, end)) = parts.pop() {
            match self.try_long(run, begin, end, tally).await? {
                Tried::Written => {
                    self.has_written = true;
                    self.suspects = 0;
                }
                Tried::Refused(_) if end - begin > 1 => {
                    let middle = begin + (end - begin) / 2;
                    parts.push((middle, end));
                    parts.push((begin, middle));
                }
                Tried::Refused(error) => {
                    // A table that accepts no row may be at fault itself, also since the last one. The position has not
                    // passed the records that were refused since then: they are tried again.
                    let is_suspect = !matches!(error.class(), ErrorClass::Row | ErrorClass::Size);
                    self.suspects += usize::from(is_suspect);
                    let is_first = error.class() != ErrorClass::Row && !self.has_written;
                    if is_first || self.suspects >= SUSPECTS {
                        return Err(not_written(&error));
                    }
                    let record = run.records[begin];
                    let (line, text) = parsed.stripe.text(record);
                    self.db.reject_step(run.rows.rows(), begin, &error).await;
                    tally.add(OutcomeKind::Rejected, 1);
                    tally.reject(&[(line, record, error.to_string(), text)])?;
                }
                Tried::Again(error) => return Err(given_up(&error)),
            }
        }
        Ok(())
    }

    /// Tries until there is an answer, for `retry_for`.
    async fn try_long(&mut self, run: &Run, begin: usize, end: usize, tally: &Tally) -> Result<Tried, Failure> {
        let deadline = self.deadline();
        let mut pause = FIRST_PAUSE;
        loop {
            let tried = self.try_once(run, begin, end, tally).await?;
            let Tried::Again(error) = &tried else { return Ok(tried) };
            if Instant::now() + pause > deadline {
                return Ok(tried);
            }
            tracing::warn!(%error, "rows were not written; trying again");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_once(&mut self, run: &Run, begin: usize, end: usize, tally: &Tally) -> Result<Tried, Failure> {
        let rows = run.rows.rows().slice(begin..end);
        let to = signed(run.records[end - 1]);
        match self.db.write_step(rows, &Step::new(self.position, to)).await {
            Ok(counts) => {
                self.position.sequence = to;
                for kind in [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded] {
                    tally.add(kind, counts.get(kind));
                }
                Ok(Tried::Written)
            }
            Err(StepError { error, .. }) if error.is_fenced() => Err(fenced()),
            Err(StepError { error, was_sent, .. }) => match error.class() {
                ErrorClass::Transient if !was_sent => Ok(Tried::Again(error)),
                ErrorClass::Resource => Ok(Tried::Again(error)),
                // Without an answer, what was sent may still be under way: the claim ends it, and knows what became of it.
                ErrorClass::Transient | ErrorClass::Unknown => {
                    if self.resolve(to).await? {
                        self.db.step_was_written(rows);
                        tally.add(OutcomeKind::Written, rows.len() as u64);
                        return Ok(Tried::Written);
                    }
                    Ok(Tried::Again(error))
                }
                _ if was_sent => Ok(Tried::Refused(error)),
                _ => Err(not_written(&error)),
            },
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

fn fenced() -> Failure {
    Failure::unavailable("another process loads this file now; what this one has written is written once")
}

fn given_up(error: &SinkError) -> Failure {
    Failure::unavailable(format!(
        "the database could not be written for retry_for: {error}; run the command again to go on"
    ))
}
