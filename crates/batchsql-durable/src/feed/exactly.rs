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

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{Claim, DynRow, ErrorClass, Isolation, PartitionKey, Position, Row, SharedRows, SinkError, Step};

use crate::feed::claimed::ExactlyOnce;
use crate::feed::context::{Context, Stream};
use crate::feed::partition::{Found, Partition, Watched};
use crate::feed::rows::LoggedRow;
use crate::feed::search::Search;

/// How often a table that cannot be written is tried.
const PROBE: Duration = Duration::from_secs(5);

/// Runs until the pipeline is closed.
pub(crate) async fn run(context: Arc<Context>, stream: Arc<Stream>, shared: Arc<ExactlyOnce>) {
    let _watched = Watched { context: Arc::clone(&context), stream: Arc::clone(&stream) };
    let key = PartitionKey::new(&*shared.source, &*context.source, &*stream.table_name, stream.partition);
    let Some(at) = Partition::open(context, stream) else { return };
    Feed { at, shared, key, position: None, waiting: VecDeque::new(), passed: 0 }.run().await;
}

/// What was read and is behind the position.
enum Waiting {
    Row(u64, DynRow),
    /// Rows up to this one are missing, and were accepted as lost.
    Missing(u64),
}

struct Feed {
    at: Partition,
    shared: Arc<ExactlyOnce>,
    key: PartitionKey,
    /// `None` until the partition is claimed.
    position: Option<Position>,
    waiting: VecDeque<Waiting>,
    /// Rows up to this one need not be written: the next step passes them.
    passed: u64,
}

/// How a try of rows ended.
enum Tried {
    Accepted,
    /// One of the rows may be at fault.
    Refused(SinkError),
    /// The table cannot be written.
    Table(SinkError),
    /// Nothing was written.
    Again(SinkError),
    /// The intake ends, or another process writes the partition.
    Over,
}

impl Feed {
    async fn run(mut self) {
        while !*self.at.is_ending.borrow() && !self.is_over() {
            if self.position.is_none() {
                self.claim().await;
                continue;
            }
            let enough = self.waiting.front().map_or(1, |front| match front {
                Waiting::Row(_, row) => self.at.context.pipeline.max_step_rows(row.schema()),
                Waiting::Missing(_) => 1,
            });
            if self.at.is_ready() && self.waiting.len() < enough {
                let found = self.at.read().await;
                self.take(found);
            } else if self.waiting.is_empty() && self.passed <= self.reached() {
                let found = self.at.changed().await;
                self.take(found);
            } else {
                self.write_front().await;
            }
        }
    }

    /// Another process has the partition, or its position makes no sense.
    fn is_over(&self) -> bool {
        self.position.is_none() && self.at.is_stopped()
    }

    fn take(&mut self, found: Found) {
        match found {
            Found::Rows(rows) => {
                for LoggedRow { sequence, row, .. } in rows {
                    self.at.stream.has_read(sequence);
                    self.waiting.push_back(Waiting::Row(sequence, row));
                }
            }
            Found::Missing(gap) => self.waiting.push_back(Waiting::Missing(gap.last)),
            Found::Nothing => {}
        }
    }

    /// Claims the partition when the task begins, and compares the position with the log.
    async fn claim(&mut self) {
        let Stream { table_name, partition, .. } = &*self.at.stream;
        let settled = self.at.stream.settled();
        let had_position = self.shared.claimed.has(table_name, *partition);
        let claim = if had_position { Claim::Existing } else { Claim::OrBeginAt(signed(settled)) };
        let context = Arc::clone(&self.at.context);
        let claimed = tokio::select! {
            claimed = context.pipeline.claim(&self.key, &self.shared.owner, claim) => claimed,
            _ = self.at.is_ending.wait_for(|is_ending| *is_ending) => return,
        };
        let position = match claimed {
            Ok(Some(position)) => position,
            Ok(None) if self.at.context.accepts_gaps => return self.claim_anew(settled).await,
            Ok(None) => {
                let text = "the database has no position of this partition, although it had one: it was made anew or restored \
                            from a backup; restore a newer one, or accept that rows written since then may be lost, with \
                            DurableOptions::accept_gaps";
                return self.at.stop(text.to_owned());
            }
            Err(error) => return self.not_claimed(&error).await,
        };
        self.begin_at(position, settled).await;
    }

    async fn claim_anew(&mut self, settled: u64) {
        let claim = Claim::OrBeginAt(signed(settled));
        match self.at.context.pipeline.claim(&self.key, &self.shared.owner, claim).await {
            Ok(Some(position)) => self.begin_at(position, settled).await,
            Ok(None) => {}
            Err(error) => self.not_claimed(&error).await,
        }
    }

    async fn not_claimed(&mut self, error: &SinkError) {
        let needs_person = matches!(error.class(), ErrorClass::Schema | ErrorClass::Permission);
        if needs_person {
            self.at.shows(format!("its position cannot be claimed: {error}; trying again"));
        } else {
            tracing::warn!(%error, partition = %self.key, "a partition cannot be claimed; trying again");
        }
        self.at.pause().await;
    }

    /// The partition is claimed. Its position and what the log has settled differ after a crash, a restored database, or a
    /// restored log.
    async fn begin_at(&mut self, position: Position, settled: u64) {
        let reached = u64::try_from(position.sequence).unwrap_or(0);
        let recovered = self.at.stream.recovered();
        if reached < settled {
            let missing = settled - reached;
            if !self.at.context.accepts_gaps {
                return self.at.stop(format!(
                    "the position in the database is {reached}, but the log has rows only from {} on: the database was \
                     restored from a backup, or rows were written without exactly once; restore a newer backup, or accept \
                     that {missing} rows may be missing, with DurableOptions::accept_gaps",
                    settled + 1
                ));
            }
            tracing::error!(partition = %self.key, missing, "rows may be missing in the database; going on");
            self.at.context.counts.missing.add(missing);
            self.passed = settled;
        } else if reached > recovered {
            // An older copy of the log: new rows must not get numbers that were used.
            let Stream { table, partition, .. } = *self.at.stream;
            if self.at.context.log.resume_above(table, partition, reached).is_err() {
                return self.at.stop(format!(
                    "the position in the database is {reached}, but the log ended at {recovered} when it was opened: it is an \
                     older copy, and rows that were stored since then have numbers that were used before; restore a newer \
                     copy of the log, or write its rows with `durable_log export` and begin with an empty folder"
                ));
            }
            tracing::warn!(partition = %self.key, reached, recovered, "the log is older than the database; going on behind it");
        }
        let (claimed, stream) = (Arc::clone(&self.shared), Arc::clone(&self.at.stream));
        let noted =
            tokio::task::spawn_blocking(move || claimed.claimed.add(&stream.table_name, stream.partition)).await;
        if let Ok(Err(error)) = noted {
            self.at.shows(format!(
                "the file POSITIONS in the folder of the intake cannot be written: {error}; trying again"
            ));
            self.at.pause().await;
            return;
        }
        self.at.stream.stop(None);
        self.position = Some(position);
        if reached > settled {
            // Written by the process before, which did not get to settle it.
            self.at.settle(settled + 1, reached);
        }
    }

    fn reached(&self) -> u64 {
        self.position.map_or(0, |position| u64::try_from(position.sequence).unwrap_or(0))
    }

    /// Writes rows of one schema from the front.
    async fn write_front(&mut self) {
        self.drop_passed();
        let (rows, sequences) = match self.front() {
            Ok(Some(front)) => front,
            Ok(None) => return self.advance().await,
            Err(reason) => return self.at.stop(reason),
        };
        let mut search = Search::new(sequences.len(), self.budget(&rows));
        while let Some((range, commits)) = search.next() {
            let part = rows.rows().slice(range.clone());
            match self.try_step(part, sequences[range.end - 1], commits).await {
                Tried::Accepted if !commits => search.accepted(range),
                Tried::Accepted => search.committed(range),
                Tried::Refused(error) => search.refused(range, error),
                Tried::Table(error) => return self.wait_for_table(&error.to_string()).await,
                Tried::Again(error) => {
                    tracing::warn!(%error, partition = %self.key, "rows were not written; trying again");
                    search.put_back(range);
                    if !self.at.pause().await {
                        return;
                    }
                }
                Tried::Over => return,
            }
            if self.keep_suspects(&mut search, &rows, &sequences).await.is_err() {
                return;
            }
            if let Some(why) = search.blames_table() {
                return self.wait_for_table(&why).await;
            }
        }
        self.at.set_aside(false);
        self.drop_passed();
    }

    /// Moves the rows that the search has found guilty to the dead letters. An error: the intake ends.
    async fn keep_suspects(&mut self, search: &mut Search, rows: &SharedRows, sequences: &[u64]) -> Result<(), ()> {
        let guilty = search.take_guilty();
        if guilty.is_empty() {
            return Ok(());
        }
        let mut lines = String::new();
        for (row, error) in &guilty {
            let outcome = self.at.context.pipeline.reject_step(rows.rows(), *row, error);
            lines.extend(self.at.letter(sequences[*row], &outcome));
            self.passed = sequences[*row];
        }
        if self.at.keep_letters(lines, guilty.len()).await { Ok(()) } else { Err(()) }
    }

    /// Removes what is behind the position or passed.
    fn drop_passed(&mut self) {
        self.passed = self.passed.max(self.reached());
        while let Some(front) = self.waiting.front() {
            match front {
                Waiting::Missing(last) => self.passed = self.passed.max(*last),
                Waiting::Row(sequence, _) if *sequence <= self.passed => {}
                Waiting::Row(..) => break,
            }
            self.waiting.pop_front();
        }
    }

    /// The rows of one schema at the front, with their sequences. `None`: there are none.
    fn front(&self) -> Result<Option<(SharedRows, Vec<u64>)>, String> {
        let Some(Waiting::Row(_, first)) = self.waiting.front() else { return Ok(None) };
        let pipeline = &self.at.context.pipeline;
        let refused = |error| format!("a row of the log cannot be written: {error}; correct the schema");
        let mut rows = pipeline.row_buffer(first.schema()).map_err(refused)?;
        let mut sequences = Vec::new();
        let most = pipeline.max_step_rows(first.schema());
        for waiting in self.waiting.iter().take(most) {
            let Waiting::Row(sequence, row) = waiting else { break };
            if row.schema() != first.schema() {
                break;
            }
            rows.push(row)
                .map_err(|error| format!("row {sequence} of the log cannot be written: {error}; correct the schema"))?;
            sequences.push(*sequence);
        }
        Ok(Some((rows.into_rows(), sequences)))
    }

    /// Tries that the search for bad rows may take.
    fn budget(&self, rows: &SharedRows) -> usize {
        let config = self.at.context.pipeline.config();
        let each = match config.isolation {
            Isolation::Bisect { max_statements, .. } => max_statements,
            _ => 1,
        };
        each.saturating_mul(rows.rows().len().div_ceil(config.flush_size).max(1))
    }

    /// Moves the position behind rows that are not written.
    async fn advance(&mut self) {
        let Some(position) = self.position else { return };
        if self.passed <= self.reached() {
            return;
        }
        let step = Step::new(position, signed(self.passed));
        let (context, shared) = (Arc::clone(&self.at.context), Arc::clone(&self.shared));
        let advance = async {
            let _permit = shared.permits.acquire().await;
            context.pipeline.advance(&step).await
        };
        let advanced = tokio::select! {
            advanced = advance => advanced,
            _ = self.at.is_ending.wait_for(|is_ending| *is_ending) => return,
        };
        match advanced {
            Ok(()) => self.has_reached(self.passed),
            Err(error) if error.class() == ErrorClass::Unknown || error.is_fenced() => {
                self.resolve(self.passed).await;
            }
            Err(error) => {
                tracing::warn!(%error, partition = %self.key, "a position cannot be moved; trying again");
                self.at.pause().await;
            }
        }
    }

    /// Writes rows in one transaction with the position, or finds out whether they would be written.
    async fn try_step(&mut self, rows: batchsql_core::Rows<'_>, to: u64, commits: bool) -> Tried {
        let Some(position) = self.position else { return Tried::Over };
        let mut step = Step::new(position, signed(to));
        if !commits {
            step = step.rolled_back();
        }
        let (context, shared) = (Arc::clone(&self.at.context), Arc::clone(&self.shared));
        let write = async {
            let _permit = shared.permits.acquire().await;
            context.pipeline.write_step(rows, &step).await
        };
        let written = tokio::select! {
            written = write => written,
            // The next process asks the database what became of it.
            _ = self.at.is_ending.wait_for(|is_ending| *is_ending) => return Tried::Over,
        };
        let failed = match written {
            Ok(_) if commits => {
                self.has_reached(to);
                return Tried::Accepted;
            }
            Ok(_) => return Tried::Accepted,
            Err(failed) => failed,
        };
        let error = failed.error;
        match error.class() {
            _ if error.is_fenced() => self.resolved(rows, to, error).await,
            ErrorClass::Unknown => self.resolved(rows, to, error).await,
            ErrorClass::Row | ErrorClass::Size | ErrorClass::Duplicate if failed.was_sent => Tried::Refused(error),
            ErrorClass::Schema | ErrorClass::Permission | ErrorClass::Internal if failed.was_sent => {
                Tried::Refused(error)
            }
            ErrorClass::Transient | ErrorClass::Resource => Tried::Again(error),
            _ => Tried::Table(error),
        }
    }

    /// What became of a step whose reply was lost.
    async fn resolved(&mut self, rows: batchsql_core::Rows<'_>, to: u64, error: SinkError) -> Tried {
        match self.resolve(to).await {
            Some(true) => {
                self.at.context.pipeline.step_was_written(rows);
                Tried::Accepted
            }
            Some(false) => {
                self.at.context.counts.written_again.add(rows.len() as u64);
                Tried::Again(error)
            }
            None => Tried::Over,
        }
    }

    /// Claims the partition again, and returns whether it has reached `to`. `None`: the intake ends, or the partition has
    /// another owner.
    async fn resolve(&mut self, to: u64) -> Option<bool> {
        let context = Arc::clone(&self.at.context);
        loop {
            let claimed = tokio::select! {
                claimed = context.pipeline.claim(&self.key, &self.shared.owner, Claim::Held) => claimed,
                _ = self.at.is_ending.wait_for(|is_ending| *is_ending) => return None,
            };
            match claimed {
                Ok(Some(position)) => {
                    let before = self.reached();
                    self.position = Some(position);
                    if self.reached() == to {
                        self.position = Some(Position { sequence: signed(before), ..position });
                        self.has_reached(to);
                        return Some(true);
                    }
                    if self.reached() == before {
                        return Some(false);
                    }
                    self.position = None;
                    self.at.stop(format!(
                        "its position in the database is {}, where {before} or {to} was expected: it was changed from \
                         outside; start the program again",
                        position.sequence
                    ));
                    return None;
                }
                Ok(None) => {
                    self.position = None;
                    self.at.stop(
                        "another process has claimed it: two processes write from copies of one log; end one of them, and \
                         start the other again"
                            .to_owned(),
                    );
                    return None;
                }
                Err(error) => {
                    tracing::warn!(%error, partition = %self.key, "it is not known yet whether rows were written");
                    if !self.at.pause().await {
                        return None;
                    }
                }
            }
        }
    }

    /// The position was moved.
    fn has_reached(&mut self, to: u64) {
        let Some(position) = &mut self.position else { return };
        position.sequence = signed(to);
        let settled = self.at.stream.settled();
        if to > settled {
            self.at.settle(settled + 1, to);
        }
        self.passed = self.passed.max(to);
        self.at.stream.stop(None);
    }

    /// Shows that the table cannot be written, and waits before the next try.
    async fn wait_for_table(&mut self, why: &str) {
        self.at.shows(format!("its table cannot be written: {why}; its rows wait, and it is tried every {PROBE:?}"));
        self.at.set_aside(true);
        tokio::select! {
            () = tokio::time::sleep(PROBE) => {}
            _ = self.at.is_ending.wait_for(|is_ending| *is_ending) => {}
        }
    }
}

fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
