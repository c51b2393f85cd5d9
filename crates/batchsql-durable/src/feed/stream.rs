//! Owns the task of one partition: it reads blocks, submits their rows in order, follows their outcomes, and settles.
//! Must not know how blocks are made.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use batchsql_core::{DeadLetterLine, DynRow, Outcome, Receipt};
use batchsql_log::{From, Gap, LogError, Next, Reader, StoredBlock};
use tokio::sync::watch;

use crate::feed::context::{Context, Stream};
use crate::feed::rows::{LoggedRow, NoRows, rows_of};
use crate::feed::window::{End, Window};

/// How often a partition looks whether its table is parked.
const LOOK: Duration = Duration::from_secs(1);

/// The waits between repeats of rows, and of reads that fail: doubled up to a limit.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Shows a task that has panicked: its rows stay in the log.
struct Watched {
    context: Arc<Context>,
    stream: Arc<Stream>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stream.stop(Some("its task has panicked, which is a defect; start the program again".to_owned()));
            self.context.progress.send_replace(());
        }
    }
}

/// Runs until the pipeline is closed.
pub(crate) async fn run(context: Arc<Context>, stream: Arc<Stream>) {
    let _watched = Watched { context: Arc::clone(&context), stream: Arc::clone(&stream) };
    let reader = match context.log.reader(stream.table, stream.partition, From::Unsettled) {
        Ok(reader) => reader,
        Err(error) => return stream.stop(Some(error.to_string())),
    };
    let feed = Feed {
        appended: stream.appended.subscribe(),
        is_ending: context.is_ending.subscribe(),
        schemas: context.schemas.changes(),
        context,
        stream,
        reader: Some(reader),
        window: Window::default(),
        receipts: VecDeque::new(),
        times: VecDeque::new(),
        reading: Reading::Ready,
        waits: 0,
        table: None,
        is_aside: false,
        has_refused: false,
    };
    feed.run().await;
}

/// Whether the next block can be read.
enum Reading {
    Ready,
    /// Until there are more rows, or space in the window.
    Idle,
    /// The block needs a schema that the program does not have yet.
    NeedsSchema(Box<StoredBlock>),
    /// Until a person has done something.
    Stopped,
}

struct Feed {
    context: Arc<Context>,
    stream: Arc<Stream>,
    appended: watch::Receiver<u64>,
    is_ending: watch::Receiver<bool>,
    schemas: watch::Receiver<()>,
    /// `None` while a thread reads with it.
    reader: Option<Reader>,
    window: Window<DynRow>,
    /// Of the rows in flight, in the order in which they were submitted.
    receipts: VecDeque<(u64, Receipt)>,
    /// When the blocks of the window were stored, each by its last row.
    times: VecDeque<(u64, SystemTime)>,
    reading: Reading,
    /// Repeats since the last row was settled.
    waits: u32,
    /// The table as the pipeline shows it.
    table: Option<String>,
    is_aside: bool,
    /// A row was refused, so that it and those behind it are not submitted by this process.
    has_refused: bool,
}

impl Feed {
    async fn run(mut self) {
        loop {
            self.take_outcomes().await;
            let is_ending = *self.is_ending.borrow();
            if is_ending && self.receipts.is_empty() {
                return;
            }
            if !is_ending && self.window.has_failed() {
                // Nothing is read before these rows are known to be written.
                if self.receipts.is_empty() && !self.has_refused {
                    self.write_again().await;
                    continue;
                }
            } else if !is_ending && matches!(self.reading, Reading::Ready) {
                self.read().await;
                continue;
            }
            self.wait().await;
        }
    }

    /// Until something has changed.
    async fn wait(&mut self) {
        let needs_schema = matches!(self.reading, Reading::NeedsSchema(_));
        let front = self.receipts.front_mut().map(|(_, receipt)| receipt);
        let has_front = front.is_some();
        tokio::select! {
            _ = async { front.expect("checked by has_front").await }, if has_front => {}
            changed = self.appended.changed() => {
                if changed.is_ok() && matches!(self.reading, Reading::Idle) {
                    self.reading = Reading::Ready;
                }
            }
            _ = self.is_ending.changed() => {}
            _ = self.schemas.changed(), if needs_schema => {
                if let Reading::NeedsSchema(block) = std::mem::replace(&mut self.reading, Reading::Ready) {
                    self.submit_block(*block).await;
                }
            }
            () = tokio::time::sleep(LOOK), if has_front || self.is_aside => self.look_at_table(),
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
                    let Stream { table_name, partition, .. } = &*self.stream;
                    let id = format!("{}:{table_name}:{partition}:{sequence}", self.context.source);
                    lines.extend(DeadLetterLine::text_of(&outcome, Some(&id)));
                    rejected.push(sequence);
                }
                // Unknown, expired, purged, and what a later version may add.
                _ => self.window.end(sequence, End::Failed),
            }
        }
        if !rejected.is_empty() {
            let end = if self.keep_letters(lines, rejected.len()).await { End::Rejected } else { End::Failed };
            rejected.into_iter().for_each(|sequence| self.window.end(sequence, end));
        }
        self.settle();
    }

    fn settle(&mut self) {
        let Some((first, last)) = self.window.settle() else { return };
        self.settle_range(first, last);
    }

    fn settle_range(&mut self, first: u64, last: u64) {
        let Stream { table, partition, .. } = *self.stream;
        if let Err(error) = self.context.log.settle(table, partition, first..=last) {
            // The rows would be written again after a restart.
            tracing::error!(%error, table = self.stream.table_name, partition, "written rows cannot be settled in the log");
        }
        self.stream.settled.fetch_max(last, Ordering::AcqRel);
        while self.times.front().is_some_and(|(of, _)| *of <= last) {
            self.times.pop_front();
        }
        if let Some((_, time)) = self.times.front() {
            self.stream.waits_since(*time);
        }
        self.waits = 0;
        if matches!(self.reading, Reading::Idle) {
            self.reading = Reading::Ready;
        }
        self.context.progress.send_replace(());
    }

    /// Writes dead letters until they are on disk. False if they are not and the intake ends.
    async fn keep_letters(&mut self, lines: String, rows: usize) -> bool {
        let lines: Arc<str> = lines.into();
        loop {
            let (letters, text) = (Arc::clone(&self.context.letters), Arc::clone(&lines));
            match tokio::task::spawn_blocking(move || letters.append(&text)).await {
                Ok(Ok(())) => {
                    self.context.counts.dead_letters.add(rows as u64);
                    return true;
                }
                Ok(Err(error)) => {
                    let path = self.context.letters.path().display();
                    tracing::error!(%path, %error, "the dead-letter file cannot be written; its partition waits");
                }
                // The runtime ends.
                Err(_) => return false,
            }
            if !self.pause().await {
                return false;
            }
        }
    }

    /// Waits before a repeat. False if the intake ends.
    async fn pause(&mut self) -> bool {
        let wait = FIRST_WAIT.saturating_mul(1 << self.waits.min(16)).min(LONGEST_WAIT);
        self.waits += 1;
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            _ = self.is_ending.wait_for(|is_ending| *is_ending) => false,
        }
    }

    /// Submits rows again whose outcome was not known.
    async fn write_again(&mut self) {
        if !self.pause().await {
            return;
        }
        let again = self.window.write_again();
        self.context.counts.written_again.add(again.len() as u64);
        for sequence in again {
            self.submit(sequence).await;
        }
    }

    async fn read(&mut self) {
        match self.next().await {
            Ok(Next::Block(block)) => {
                self.times.push_back((block.last(), block.time));
                if self.times.len() == 1 {
                    self.stream.waits_since(block.time);
                }
                self.submit_block(block).await;
            }
            Ok(Next::Gap(gap)) => self.gap(gap),
            Ok(_) if matches!(self.reading, Reading::Stopped) => {}
            // The end, a full window, and what a later version may add.
            Ok(_) => self.reading = Reading::Idle,
            Err(error) => {
                tracing::error!(%error, table = self.stream.table_name, "the log cannot be read; trying again");
                self.pause().await;
            }
        }
    }

    /// Reads on a thread that may block.
    async fn next(&mut self) -> Result<Next, LogError> {
        let reader = match self.reader.take() {
            Some(reader) => Ok(reader),
            // A call before has lost it, by a panic.
            None => self.context.log.reader(self.stream.table, self.stream.partition, From::Unsettled),
        };
        let mut reader = reader?;
        let read = tokio::task::spawn_blocking(move || {
            let next = reader.next();
            (reader, next)
        });
        match read.await {
            Ok((reader, next)) => {
                self.reader = Some(reader);
                next
            }
            Err(error) if error.is_cancelled() => {
                // The runtime ends.
                self.reading = Reading::Stopped;
                Ok(Next::End)
            }
            Err(error) => {
                self.stop(format!("the reader of the log has failed ({error}); start the program again"));
                Ok(Next::End)
            }
        }
    }

    fn gap(&mut self, gap: Gap) {
        let rows = gap.last - gap.first + 1;
        let (table, partition) = (&self.stream.table_name, self.stream.partition);
        if self.context.accepts_gaps {
            tracing::error!(
                table,
                partition,
                first = gap.first,
                last = gap.last,
                "rows are missing in the log; going on"
            );
            self.context.counts.missing.add(rows);
            self.window.push_gap(gap.first, gap.last);
            self.stream.has_read(gap.last);
            self.settle();
            return;
        }
        self.stop(format!(
            "{rows} rows are missing in the log ({} to {}); look into its folder quarantine, restore a backup, or accept the \
             loss with DurableOptions::accept_gaps",
            gap.first, gap.last
        ));
    }

    fn stop(&mut self, reason: String) {
        tracing::error!(
            table = self.stream.table_name,
            partition = self.stream.partition,
            reason,
            "a partition has stopped"
        );
        self.stream.stop(Some(reason));
        self.reading = Reading::Stopped;
        self.context.progress.send_replace(());
    }

    async fn submit_block(&mut self, block: StoredBlock) {
        let Context { schemas, ordered, .. } = &*self.context;
        self.schemas.mark_unchanged();
        let rows = match rows_of(&block, schemas, self.stream.settled(), ordered) {
            Ok(rows) => rows,
            Err(NoRows::Unresolved(error)) => {
                self.stop(error.to_string());
                self.reading = Reading::NeedsSchema(Box::new(block));
                return;
            }
            Err(NoRows::Unusable(reason)) => return self.stop(reason),
        };
        self.stream.stop(None);
        for LoggedRow { sequence, row, key } in rows {
            self.window.push(sequence, row, key);
            self.stream.has_read(sequence);
            self.submit(sequence).await;
            if matches!(self.reading, Reading::Stopped) {
                return;
            }
        }
    }

    /// Submits a row of the window. A row that is not accepted has failed, and stays in the log.
    async fn submit(&mut self, sequence: u64) {
        let row = self.window.row(sequence).expect("rows of the window are submitted");
        self.table.get_or_insert_with(|| batchsql_core::Row::schema(row).table_display().to_owned());
        if self.context.settles_early {
            let _ = self.context.pipeline.submit(row).await;
            self.window.end(sequence, End::Written);
            return self.settle();
        }
        let submitted = {
            let accepted = self.context.pipeline.submit_tracked(row);
            tokio::pin!(accepted);
            loop {
                tokio::select! {
                    // Most rows are accepted at once, without a timer.
                    biased;
                    submitted = &mut accepted => break submitted,
                    // The wait may be long: the table has its share of the buffer already.
                    () = tokio::time::sleep(LOOK) => look(&self.context, &self.stream, &self.table, &mut self.is_aside),
                }
            }
        };
        match submitted {
            Ok(receipt) => self.receipts.push_back((sequence, receipt)),
            Err(error) => {
                self.window.end(sequence, End::Failed);
                if let Some(error) = error.row_error() {
                    self.has_refused = true;
                    self.stop(format!("row {sequence} of the log cannot be submitted: {error}; correct the schema"));
                }
            }
        }
    }

    fn look_at_table(&mut self) {
        look(&self.context, &self.stream, &self.table, &mut self.is_aside);
    }
}

/// The rows of a parked table leave the segments that they share with other tables.
fn look(context: &Context, stream: &Stream, table: &Option<String>, is_aside: &mut bool) {
    let Some(table) = table else { return };
    let is_parked = context.pipeline.health().parked.iter().any(|parked| parked.table == *table);
    if is_parked != *is_aside {
        *is_aside = is_parked;
        context.log.set_aside(stream.table, stream.partition, is_parked);
    }
}
