//! Owns what the task of a partition does whatever its guarantee is: reading blocks as rows, settling, dead letters, waiting,
//! stopping.
//! Must not know how rows are written.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use batchsql_core::{DeadLetterLine, Outcome, Queue, Rows, StopReason};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::context::{Context, Counts, Ending};
use crate::misfits::{Misfit, Rejections};
use crate::rows::{NoRows, StoredRows, rows_of};
use crate::said::Said;
use crate::source::{Next, Refusal, Source, SourceBlock, SourceGap};
use crate::state::{PartitionState, WaitsFor};

/// The waits between repeats of rows, and of reads that fail: doubled up to a limit.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Shows a task that has panicked: its rows stay in the source.
pub(crate) struct Watched {
    pub(crate) context: Arc<Context>,
    pub(crate) state: Arc<PartitionState>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = "its task has panicked, which is a defect; start the program again";
            self.state.stop(Some((StopReason::Defect, text.to_owned())));
            self.context.progress.send_replace(());
        }
    }
}

/// Whether the next block can be read.
pub(crate) enum Reading {
    Ready,
    /// Until there are more rows, or space in the window.
    Idle,
    /// The block needs a schema that the program does not have yet.
    NeedsSchema(Box<SourceBlock>),
    /// Until a person has done something.
    Stopped,
}

/// What was read.
pub(crate) enum Found {
    Rows(Vec<StoredRows>),
    /// What is between these sequences needs no write.
    Skipped(u64, u64),
    /// Nothing now: `reading` says why.
    Nothing,
}

/// One partition, as its task holds it.
pub(crate) struct Partition<S> {
    pub(crate) context: Arc<Context>,
    pub(crate) state: Arc<PartitionState>,
    /// Of its table.
    pub(crate) counts: Arc<Counts>,
    pub(crate) source: S,
    pub(crate) reading: Reading,
    ending: watch::Receiver<Ending>,
    schemas: watch::Receiver<()>,
    /// When the blocks that are not settled were stored, each by its last row.
    times: Queue<(u64, SystemTime)>,
    /// Repeats since the last row was settled.
    waits: u32,
    /// Why it waits, as the log has it.
    said: Said,
    is_aside: bool,
    rejections: Rejections,
}

impl<S: Source> Partition<S> {
    pub(crate) fn new(
        context: Arc<Context>,
        state: Arc<PartitionState>,
        source: S,
        ending: watch::Receiver<Ending>,
    ) -> Self {
        Self {
            schemas: context.options.schemas.changes(),
            counts: context.counts_of(state.table()),
            context,
            state,
            source,
            reading: Reading::Ready,
            ending,
            times: Queue::new(),
            waits: 0,
            said: Said::default(),
            is_aside: false,
            rejections: Rejections::default(),
        }
    }

    /// Whether nothing more is begun.
    pub(crate) fn is_ending(&self) -> bool {
        *self.ending.borrow() != Ending::No
    }

    /// Completes when nothing more is begun.
    pub(crate) fn ends(&self) -> impl Future<Output = ()> + use<S> {
        self.has_come(|ending| *ending != Ending::No)
    }

    /// Completes when nothing is waited for any more.
    pub(crate) fn ends_now(&self) -> impl Future<Output = ()> + use<S> {
        self.has_come(|ending| *ending == Ending::Now)
    }

    fn has_come(&self, is_it: fn(&Ending) -> bool) -> impl Future<Output = ()> + use<S> {
        let mut ending = self.ending.clone();
        async move {
            // Without a sender the runtime ends, and with it this task.
            let _ = ending.wait_for(is_it).await;
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.reading, Reading::Ready)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.reading, Reading::Stopped)
    }

    pub(crate) fn is_aside(&self) -> bool {
        self.is_aside
    }

    /// Until more can be read, or the feed ends. Rows whose schema has come are returned.
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub(crate) async fn changed(&mut self) -> Found {
        let needs_schema = matches!(self.reading, Reading::NeedsSchema(_));
        let is_idle = matches!(self.reading, Reading::Idle);
        tokio::select! {
            () = self.source.ready(), if is_idle => self.reading = Reading::Ready,
            _ = self.ending.changed() => {}
            _ = self.schemas.changed(), if needs_schema => {
                if let Reading::NeedsSchema(block) = std::mem::replace(&mut self.reading, Reading::Ready) {
                    return self.rows(*block);
                }
            }
        }
        Found::Nothing
    }

    /// The next rows, or why there are none now.
    pub(crate) async fn read(&mut self) -> Found {
        let next = self.source.next().await;
        if next.is_ok() {
            self.state.wait(WaitsFor::Source, None);
        }
        match next {
            Ok(Next::Block(block)) => {
                self.times.push_back((block.last(), block.time));
                if self.times.len() == 1 {
                    self.state.waits_since(block.time);
                }
                self.state.has_blocks(self.times.len());
                return self.rows(block);
            }
            Ok(Next::Gap(SourceGap { first, last, .. })) if first > last => self.empty(first, last),
            Ok(Next::Skip(rows) | Next::Rejected(rows)) if rows.is_empty() => self.empty(*rows.start(), *rows.end()),
            Ok(Next::Gap(gap)) => return self.gap(gap),
            Ok(Next::Skip(rows)) => {
                self.state.has_read(*rows.end());
                return Found::Skipped(*rows.start(), *rows.end());
            }
            Ok(Next::Rejected(rows)) => {
                let (first, last) = rows.into_inner();
                self.state.has_read(last);
                self.counts.read.add(last - first + 1);
                self.counts.dead_letters.add(last - first + 1);
                return Found::Skipped(first, last);
            }
            Ok(Next::Nothing) => self.reading = Reading::Idle,
            Err(error) => match error.stop {
                Some(kind) => self.stop(kind, error.to_string()),
                None => {
                    let place = self.context.options.place;
                    let reason = format!("{place} cannot be read: {error}; trying again");
                    self.waits_for(WaitsFor::Source, reason);
                    self.pause().await;
                }
            },
        }
        Found::Nothing
    }

    fn rows(&mut self, block: SourceBlock) -> Found {
        let options = &self.context.options;
        self.schemas.mark_unchanged();
        match rows_of(&block, &options.schemas, &options.ordered, options.misfits) {
            Ok(rows) => {
                self.state.has_read(block.last());
                self.counts.read.add(rows.iter().map(StoredRows::len).sum::<usize>() as u64);
                self.state.stop(None);
                Found::Rows(rows)
            }
            Err(NoRows::Unresolved(error)) => {
                self.stop(error.kind(), error.to_string());
                self.reading = Reading::NeedsSchema(Box::new(block));
                Found::Nothing
            }
            Err(NoRows::Unusable(kind, reason)) => {
                self.stop(kind, reason);
                Found::Nothing
            }
        }
    }

    /// The source has named no sequence, which is a defect of it: as if it had nothing.
    fn empty(&mut self, first: u64, last: u64) {
        let (table, partition) = (self.state.table(), self.state.partition());
        tracing::warn!(table, partition, first, last, "a source has returned an empty range; it counts as nothing");
        self.reading = Reading::Idle;
    }

    fn gap(&mut self, gap: SourceGap) -> Found {
        let SourceGap { first, last, rows, text } = gap;
        if self.context.options.accepts_gaps {
            let (table, partition) = (self.state.table(), self.state.partition());
            tracing::error!(table, partition, first, last, rows, text, "rows are missing; going on");
            self.counts.missing.add(rows);
            self.state.has_read(last);
            return Found::Skipped(first, last);
        }
        self.stop(StopReason::Gap, text);
        Found::Nothing
    }

    /// Everything up to this row has ended.
    pub(crate) async fn settle(&mut self, first: u64, last: u64) {
        let (table, partition) = (self.state.table(), self.state.partition());
        if let Err(error) = self.source.settle(first..=last).await {
            // The rows would be read again after a restart.
            tracing::error!(%error, table, partition, "written rows cannot be settled in {}", self.context.options.place);
        }
        self.state.settle(last);
        while self.times.front().is_some_and(|(of, _)| *of <= last) {
            self.times.pop_front();
        }
        if let Some((_, time)) = self.times.front() {
            self.state.waits_since(*time);
        }
        self.state.has_blocks(self.times.len());
        self.waits = 0;
        self.said.forget();
        self.look_for_more();
        self.context.progress.send_replace(());
    }

    /// These have ended too, and the task ends.
    pub(crate) async fn settle_behind(&mut self, rows: Vec<RangeInclusive<u64>>) {
        if rows.is_empty() {
            return;
        }
        let (table, partition) = (self.state.table(), self.state.partition());
        if let Err(error) = self.source.settle_behind(rows).await {
            tracing::error!(%error, table, partition, "written rows cannot be settled in {}", self.context.options.place);
        }
    }

    /// The line of a rejected row.
    pub(crate) fn letter(&self, sequence: u64, outcome: &Outcome) -> Option<String> {
        let (source, table) = (&self.context.options.incarnation, self.state.table());
        let id = format!("{source}:{table}:{}:{sequence}", self.state.partition());
        DeadLetterLine::text_of(outcome, Some(&id))
    }

    /// How many misfits may be rejected before the table accepts a row: as many as rows of a batch that the database refuses.
    /// Past that their partition stops, as a table that refuses all rows is parked.
    pub(crate) fn may_reject(&self, rows: Rows<'_>) -> usize {
        self.rejections.left(self.context.pipeline.isolation_budget(rows.slice(0..1)))
    }

    /// The table has accepted a row with this sequence.
    pub(crate) fn accepted(&mut self, sequence: u64) {
        self.rejections.accepted(sequence);
    }

    /// Rejects rows that can never be written, with the reason. False if the feed ends: then they stay in the source.
    pub(crate) async fn reject(&mut self, misfits: &[Misfit]) -> bool {
        let (mut lines, context) = (String::new(), Arc::clone(&self.context));
        for misfit in misfits {
            let outcome = tokio::select! {
                outcome = context.pipeline.reject_step(misfit.rows.rows(), misfit.row, &misfit.error) => outcome,
                () = self.ends_now() => return false,
            };
            lines.extend(self.letter(misfit.sequence(), &outcome));
        }
        if !misfits.is_empty() && !self.keep_letters(lines, misfits.len()).await {
            return false;
        }
        misfits.iter().for_each(|misfit| self.rejections.add(misfit.sequence()));
        true
    }

    /// Stops because too many rows without one that the table has accepted cannot be written as they are.
    pub(crate) fn stop_at_misfit(&mut self, misfit: &Misfit) {
        let (sequence, place, rejected) = (misfit.sequence(), self.context.options.place, self.rejections.len());
        let text = format!(
            "{rejected} rows that can never be written were rejected, and no row was written since; the next one is row {sequence} \
             of {place}: {}; correct the schema or the limit and start the program again; the rows wait in {place}",
            misfit.error
        );
        self.stop(StopReason::Schema, text);
    }

    /// Writes dead letters until they are on disk. False if they are not and the feed ends.
    pub(crate) async fn keep_letters(&mut self, lines: String, rows: usize) -> bool {
        let lines: Arc<str> = lines.into();
        loop {
            let (letters, text) = (Arc::clone(&self.context.options.letters), Arc::clone(&lines));
            match tokio::task::spawn_blocking(move || letters.append(&text)).await {
                Ok(Ok(())) => {
                    self.state.wait(WaitsFor::Letters, None);
                    self.counts.dead_letters.add(rows as u64);
                    return true;
                }
                Ok(Err(error)) => {
                    let path = self.context.options.letters.path().display();
                    let reason = format!(
                        "the dead-letter file {path} cannot be written: {error}; free some space or correct its folder; trying again"
                    );
                    self.waits_for(WaitsFor::Letters, reason);
                }
                // The runtime ends.
                Err(_) => return false,
            }
            if !self.pause().await {
                return false;
            }
        }
    }

    /// Waits before a repeat. False if the feed ends.
    pub(crate) async fn pause(&mut self) -> bool {
        let wait = FIRST_WAIT.saturating_mul(1 << self.waits.min(16)).min(LONGEST_WAIT);
        self.waits += 1;
        self.sleep(wait).await
    }

    /// False if the feed ends.
    pub(crate) async fn sleep(&mut self, wait: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = self.ends() => false,
        }
    }

    /// Goes on only after a person has done something.
    pub(crate) fn stop(&mut self, kind: StopReason, reason: String) {
        let (table, partition) = (self.state.table(), self.state.partition());
        tracing::error!(table, partition, reason, "a partition has stopped");
        self.state.wait_for_nothing();
        self.state.stop(Some((kind, reason)));
        self.reading = Reading::Stopped;
        self.context.progress.send_replace(());
    }

    /// Stops, or waits before it tries again.
    pub(crate) async fn refused(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Stop(kind, reason) => self.stop(kind, reason),
            Refusal::Wait(reason) => {
                self.waits(reason);
                self.pause().await;
            }
        }
    }

    /// Shows why it does not go on now, which is due to the database.
    pub(crate) fn waits(&mut self, reason: String) {
        self.waits_for(WaitsFor::Database, reason);
    }

    fn waits_for(&mut self, what: WaitsFor, reason: String) {
        if self.said.is_due(&reason, Instant::now()) {
            let (table, partition) = (self.state.table(), self.state.partition());
            tracing::error!(table, partition, reason, "a partition waits");
        }
        self.state.wait(what, Some(reason));
    }

    /// Repeats since the last row was settled.
    pub(crate) fn repeats(&self) -> u32 {
        self.waits
    }

    /// It does no longer wait for the database.
    pub(crate) fn goes_on(&self) {
        self.state.wait(WaitsFor::Database, None);
    }

    /// The source is read again from its position on.
    pub(crate) fn begins_anew(&mut self) {
        self.times.clear();
        self.state.has_blocks(0);
        if !self.is_stopped() {
            self.reading = Reading::Ready;
        }
    }

    /// The end of the source may no longer be its end.
    pub(crate) fn look_for_more(&mut self) {
        if matches!(self.reading, Reading::Idle) {
            self.reading = Reading::Ready;
        }
    }

    /// The rows of a table that cannot be written may stay for long.
    pub(crate) fn set_aside(&mut self, is_aside: bool) {
        if self.is_aside != is_aside {
            self.is_aside = is_aside;
            self.source.set_aside(is_aside);
        }
    }
}
