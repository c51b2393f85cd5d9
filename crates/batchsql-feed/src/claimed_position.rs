//! Owns the position of a partition in the database, as this process has claimed it: the claim, and the steps that move it.
//! Must not know which rows a step has.

use std::sync::Arc;

use batchsql_core::{Claim, Claimed, ErrorClass, PartitionKey, Position, Rows, SinkError, Step, StopReason};

use crate::options::FeedOptions;
use crate::partition::Partition;
use crate::source::{Begin, NotClaimed, Refusal, Source};

/// So many repeats without a row that was written are shown.
const SHOWN_REPEATS: u32 = 6;

/// What this process knows of the position.
pub(crate) struct ClaimedPosition {
    key: PartitionKey,
    /// As of the last claim.
    owner: String,
    /// `None` until the partition is claimed.
    position: Option<Position>,
}

/// How a try of rows ended.
pub(crate) enum Tried {
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

impl ClaimedPosition {
    /// Nothing is claimed yet.
    pub(crate) fn new(key: PartitionKey) -> Self {
        Self { key, owner: String::new(), position: None }
    }

    pub(crate) fn is_claimed(&self) -> bool {
        self.position.is_some()
    }

    /// Rows up to this one are passed; 0 without a claim.
    pub(crate) fn reached(&self) -> u64 {
        self.position.map_or(0, |position| unsigned(position.sequence))
    }

    /// Claims the partition when the task begins, and compares the position with the source. Returns up to where rows need not be
    /// written, if it is claimed.
    pub(crate) async fn claim<S: Source>(&mut self, at: &mut Partition<S>) -> Option<u64> {
        at.begins_anew();
        let claim = match at.source.claim().await {
            Ok(claim) => claim,
            Err(refusal) => {
                at.refused(refusal).await;
                return None;
            }
        };
        self.owner.clone_from(&claim.owner);
        match self.ask(at, &claim).await? {
            Ok(Claimed::Position(position)) => return self.begin_at(at, position, None).await,
            Ok(Claimed::Ahead { position, moved_to }) => return self.begin_ahead(at, position, moved_to).await,
            Ok(Claimed::Missing) => not_claimed(at, NotClaimed::Missing).await,
            Ok(_) => not_claimed(at, NotClaimed::Other).await,
            Err(error) => {
                // Some errors do not name the table.
                let text = format!(
                    "its position cannot be claimed: {error}; trying again (in a database, it is in the table batchsql_positions)"
                );
                at.refused(Refusal::Wait(text)).await;
            }
        }
        None
    }

    /// Asks the database for the partition. `None`: the feed ends.
    async fn ask<S: Source>(&self, at: &mut Partition<S>, claim: &Claim) -> Option<Result<Claimed, SinkError>> {
        let context = Arc::clone(&at.context);
        let asked = async {
            let _permit = context.claims.acquire().await;
            context.pipeline.claim(&self.key, claim).await
        };
        tokio::select! {
            claimed = asked => Some(claimed),
            () = at.ends_now() => None,
        }
    }

    /// The partition is claimed, but somebody else has moved its position ahead: rows up to it may not be in the database.
    async fn begin_ahead<S: Source>(
        &mut self,
        at: &mut Partition<S>,
        position: Position,
        moved_to: i64,
    ) -> Option<u64> {
        let [reached, moved_to] = [position.sequence, moved_to].map(unsigned);
        if at.context.options.accepts_gaps {
            return self.begin_at(at, position, Some(moved_to)).await;
        }
        let text = was_moved(&at.context.options, &self.key, moved_to, reached);
        at.refused(Refusal::Stop(StopReason::Position, text)).await;
        None
    }

    /// The partition is claimed. Its position and what the source has settled differ after a crash, a restored database, or a
    /// source that has lost its end. `moved_to`: it was moved ahead from there, which is accepted.
    async fn begin_at<S: Source>(
        &mut self,
        at: &mut Partition<S>,
        position: Position,
        moved_to: Option<u64>,
    ) -> Option<u64> {
        let reached = unsigned(position.sequence);
        let Begin { passed, mut missing } = match at.source.begin_at(reached).await {
            Ok(begin) => begin,
            Err(refusal) => {
                at.refused(refusal).await;
                return None;
            }
        };
        at.goes_on();
        at.state.hold(true);
        self.position = Some(position);
        if let Some(moved_to) = moved_to {
            // Before rows are settled: the source may forget them then.
            self.accept(at, reached).await?;
            at.goes_on();
            missing += at.source.rows_between(moved_to, reached);
        }
        if missing > 0 {
            tracing::error!(partition = %self.key, missing, "rows may be missing in the database; going on");
            at.counts.missing.add(missing);
        }
        let settled = at.state.settled();
        if reached > settled {
            // Written by the process before, which did not get to settle it.
            at.settle(settled + 1, reached).await;
        }
        Some(passed)
    }

    /// Makes the position that somebody else has moved one of this process. `None`: the feed ends, or loses the partition.
    async fn accept<S: Source>(&mut self, at: &mut Partition<S>, reached: u64) -> Option<()> {
        loop {
            let step = Step::new(self.position?, signed(reached));
            let Err(error) = self.make_step(at, &step).await? else { return Some(()) };
            self.resolve(at, None).await?;
            self.fails(at, "a position was not accepted", "its position was not accepted", &unmoved(error));
            if !at.pause().await {
                return None;
            }
        }
    }

    /// A step without rows. `None`: the feed ends.
    async fn make_step<S: Source>(&self, at: &mut Partition<S>, step: &Step) -> Option<Result<(), SinkError>> {
        let context = Arc::clone(&at.context);
        let advance = async {
            let _permit = context.steps.acquire().await;
            context.pipeline.advance(step).await
        };
        tokio::select! {
            advanced = advance => Some(advanced),
            () = at.ends_now() => None,
        }
    }

    /// Moves the position behind rows that are not written, up to `to`.
    pub(crate) async fn advance<S: Source>(&mut self, at: &mut Partition<S>, to: u64) {
        let Some(position) = self.position else { return };
        if to <= self.reached() {
            return;
        }
        let Some(advanced) = self.make_step(at, &Step::new(position, signed(to))).await else { return };
        match advanced {
            Ok(()) => self.has_reached(at, to).await,
            Err(error) => {
                if self.resolve(at, in_doubt(to, &error)).await == Some(false) {
                    self.fails(at, "a position was not moved", "its position was not moved", &unmoved(error));
                    at.pause().await;
                }
            }
        }
    }

    /// Something is tried again: a warning `said`, and after some repeats what the partition waits for, `shown`.
    pub(crate) fn fails<S: Source>(&self, at: &mut Partition<S>, said: &str, shown: &str, error: &SinkError) {
        if at.repeats() >= SHOWN_REPEATS {
            at.waits(format!("{shown}: {error}; trying again"));
        } else {
            tracing::warn!(%error, partition = %self.key, "{said}; trying again");
        }
    }

    /// Writes rows in one transaction with the position, or finds out whether they would be written.
    pub(crate) async fn try_step<S: Source>(
        &mut self,
        at: &mut Partition<S>,
        rows: Rows<'_>,
        to: u64,
        commits: bool,
    ) -> Tried {
        let Some(position) = self.position else { return Tried::Over };
        let mut step = Step::new(position, signed(to));
        if !commits {
            step = step.rolled_back();
        }
        let context = Arc::clone(&at.context);
        let write = async {
            let _permit = context.steps.acquire().await;
            context.pipeline.write_step(rows, &step).await
        };
        let written = tokio::select! {
            written = write => written,
            // The next process asks the database what became of it.
            () = at.ends_now() => return Tried::Over,
        };
        let failed = match written {
            Ok(_) if commits => {
                at.counts.written.add(rows.len() as u64);
                self.has_reached(at, to).await;
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
            ErrorClass::Unknown | ErrorClass::Transient => self.resolved(at, rows, (to, commits), error).await,
            _ if failed.was_sent => Tried::Refused(error),
            _ => Tried::Table(error),
        }
    }

    /// What became of a step whose reply was lost.
    async fn resolved<S: Source>(
        &mut self,
        at: &mut Partition<S>,
        rows: Rows<'_>,
        (to, commits): (u64, bool),
        error: SinkError,
    ) -> Tried {
        // A step that is rolled back moves nothing.
        let in_doubt = in_doubt(to, &error).filter(|_| commits);
        match self.resolve(at, in_doubt).await {
            Some(true) => {
                at.context.pipeline.step_was_written(rows);
                at.counts.written.add(rows.len() as u64);
                Tried::Accepted
            }
            Some(false) => {
                at.counts.written_again.add(rows.len() as u64);
                Tried::Again(unmoved(error), true)
            }
            None => Tried::Over,
        }
    }

    /// Claims the partition again, and returns whether a step to `in_doubt` was committed. `None`: the feed ends, or the partition
    /// has another owner, or a position that this process has not written.
    pub(crate) async fn resolve<S: Source>(&mut self, at: &mut Partition<S>, in_doubt: Option<u64>) -> Option<bool> {
        let claim = Claim::of(&*self.owner);
        loop {
            match self.ask(at, &claim).await? {
                Ok(Claimed::Ahead { position, moved_to }) => {
                    // A step moves both columns: it was not moved by the step in doubt.
                    let [now, moved_to] = [position.sequence, moved_to].map(unsigned);
                    let text = was_moved(&at.context.options, &self.key, moved_to, now);
                    self.loses_position(at);
                    at.stop(StopReason::Position, text);
                    return None;
                }
                Ok(Claimed::Position(position)) => {
                    let before = self.reached();
                    let now = unsigned(position.sequence);
                    self.position = Some(Position { sequence: signed(before), ..position });
                    if now != before && in_doubt == Some(now) {
                        self.has_reached(at, now).await;
                        return Some(true);
                    }
                    if now == before {
                        return Some(false);
                    }
                    self.loses_position(at);
                    stop_at_change(at, before, in_doubt, now);
                    return None;
                }
                Ok(Claimed::Missing) => {
                    self.loses_position(at);
                    let text = "its position is gone: the table batchsql_positions of the database, or the stream that has it, was \
                                made anew or restored; start the program again";
                    at.stop(StopReason::Position, text.to_owned());
                    return None;
                }
                Ok(_) => {
                    self.loses_position(at);
                    not_claimed(at, NotClaimed::Other).await;
                    return None;
                }
                Err(error) => {
                    at.waits(format!("it is not known yet whether its rows were written: {error}; trying again"));
                    if !at.pause().await {
                        return None;
                    }
                }
            }
        }
    }

    /// The partition is not claimed any more.
    fn loses_position<S: Source>(&mut self, at: &Partition<S>) {
        at.state.hold(false);
        self.position = None;
    }

    /// The position was moved.
    async fn has_reached<S: Source>(&mut self, at: &mut Partition<S>, to: u64) {
        let Some(position) = &mut self.position else { return };
        position.sequence = signed(to);
        let settled = at.state.settled();
        if to > settled {
            at.settle(settled + 1, to).await;
        }
        at.goes_on();
    }
}

async fn not_claimed<S: Source>(at: &mut Partition<S>, why: NotClaimed) {
    let refusal = at.source.not_claimed(why);
    at.refused(refusal).await;
}

/// Stops because the position was changed from outside, not by a step of this process, or is that of a store without `moved_to`.
fn stop_at_change<S: Source>(at: &mut Partition<S>, before: u64, in_doubt: Option<u64>, now: u64) {
    let or = in_doubt.map_or(String::new(), |to| format!(" or {to}"));
    let found = format!("its position is {now}, where {before}{or} was expected: it was changed from outside");
    let text = if now > before {
        format!(
            "{found}, by another program with the same owner or by a person; find out which rows up to {now} are written before the \
             program starts again: it passes them over"
        )
    } else {
        format!("{found}, or what has it was restored from a backup; start the program again")
    };
    at.stop(StopReason::Position, text);
}

/// What a person does about a position that somebody else has moved ahead.
fn was_moved(options: &FeedOptions, key: &PartitionKey, moved_to: u64, found: u64) -> String {
    let accept = match options.accept_gaps_option {
        Some(option) => format!("accept once that they may be missing, with {option}"),
        None => format!("set moved_to to {found} too to pass them over"),
    };
    let place = key.row_of_position();
    format!(
        "its position is {found}, but was moved only to {moved_to} with its rows: it was changed from outside, and rows up to it would \
         be passed over; end the program, and set it back to {moved_to}: UPDATE batchsql_positions SET sequence = moved_to WHERE {place}; \
         or {accept}; then start the program again"
    )
}

/// The position after a step that has failed, if it may have been committed: not if the position was not where the step begins.
fn in_doubt(to: u64, error: &SinkError) -> Option<u64> {
    (!error.is_fenced()).then_some(to)
}

/// The error of a step, when the partition was claimed again and the position is as before: it is not fenced.
fn unmoved(error: SinkError) -> SinkError {
    if !error.is_fenced() {
        return error;
    }
    let text = "the step that moves the position changes nothing, although no other process has the partition; in a database, a \
                trigger or a rule of batchsql_positions may keep it from that";
    SinkError::new(error.class(), text)
}

fn unsigned(sequence: i64) -> u64 {
    u64::try_from(sequence).unwrap_or(0)
}

fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
