//! Owns what the task of a partition does whatever its guarantee is: reading blocks as rows, settling, dead letters, waiting,
//! stopping.
//! Must not know how rows are written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use batchsql_core::{DeadLetterLine, Outcome};
use batchsql_log::{From, Gap, LogError, Next, Reader, StoredBlock};
use tokio::sync::watch;

use crate::feed::context::{Context, Stream};
use crate::feed::rows::{LoggedRow, NoRows, rows_of};

/// The waits between repeats of rows, and of reads that fail: doubled up to a limit.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Shows a task that has panicked: its rows stay in the log.
pub(crate) struct Watched {
    pub(crate) context: Arc<Context>,
    pub(crate) stream: Arc<Stream>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stream.stop(Some("its task has panicked, which is a defect; start the program again".to_owned()));
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
    NeedsSchema(Box<StoredBlock>),
    /// Until a person has done something.
    Stopped,
}

/// What was read.
pub(crate) enum Found {
    Rows(Vec<LoggedRow>),
    /// Rows that are missing, and were accepted as lost.
    Missing(Gap),
    /// Nothing now: `reading` says why.
    Nothing,
}

/// One partition, as its task holds it.
pub(crate) struct Partition {
    pub(crate) context: Arc<Context>,
    pub(crate) stream: Arc<Stream>,
    pub(crate) is_ending: watch::Receiver<bool>,
    pub(crate) reading: Reading,
    appended: watch::Receiver<u64>,
    schemas: watch::Receiver<()>,
    /// `None` while a thread reads with it.
    reader: Option<Reader>,
    /// When the blocks of the window were stored, each by its last row.
    times: VecDeque<(u64, SystemTime)>,
    /// Repeats since the last row was settled.
    waits: u32,
    is_aside: bool,
}

impl Partition {
    /// `None` if the log cannot be read.
    pub(crate) fn open(context: Arc<Context>, stream: Arc<Stream>) -> Option<Self> {
        let reader = match context.log.reader(stream.table, stream.partition, From::Unsettled) {
            Ok(reader) => reader,
            Err(error) => {
                stream.stop(Some(error.to_string()));
                return None;
            }
        };
        Some(Self {
            appended: stream.appended.subscribe(),
            is_ending: context.is_ending.subscribe(),
            schemas: context.schemas.changes(),
            context,
            stream,
            reader: Some(reader),
            times: VecDeque::new(),
            reading: Reading::Ready,
            waits: 0,
            is_aside: false,
        })
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

    /// Until more can be read, or the intake ends. Rows whose schema has come are returned.
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub(crate) async fn changed(&mut self) -> Found {
        let needs_schema = matches!(self.reading, Reading::NeedsSchema(_));
        tokio::select! {
            changed = self.appended.changed() => {
                if changed.is_ok() && matches!(self.reading, Reading::Idle) {
                    self.reading = Reading::Ready;
                }
            }
            _ = self.is_ending.changed() => {}
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
        match self.next().await {
            Ok(Next::Block(block)) => {
                self.times.push_back((block.last(), block.time));
                if self.times.len() == 1 {
                    self.stream.waits_since(block.time);
                }
                return self.rows(block);
            }
            Ok(Next::Gap(gap)) => return self.gap(gap),
            Ok(_) if self.is_stopped() => {}
            // The end, a full window, and what a later version may add.
            Ok(_) => self.reading = Reading::Idle,
            Err(error) => {
                tracing::error!(%error, table = self.stream.table_name, "the log cannot be read; trying again");
                self.pause().await;
            }
        }
        Found::Nothing
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

    fn rows(&mut self, block: StoredBlock) -> Found {
        let Context { schemas, ordered, .. } = &*self.context;
        self.schemas.mark_unchanged();
        match rows_of(&block, schemas, self.stream.settled(), ordered) {
            Ok(rows) => {
                self.stream.stop(None);
                Found::Rows(rows)
            }
            Err(NoRows::Unresolved(error)) => {
                self.stop(error.to_string());
                self.reading = Reading::NeedsSchema(Box::new(block));
                Found::Nothing
            }
            Err(NoRows::Unusable(reason)) => {
                self.stop(reason);
                Found::Nothing
            }
        }
    }

    fn gap(&mut self, gap: Gap) -> Found {
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
            self.stream.has_read(gap.last);
            return Found::Missing(gap);
        }
        self.stop(format!(
            "{rows} rows are missing in the log ({} to {}); look into its folder quarantine, restore a backup, or accept the \
             loss with DurableOptions::accept_gaps",
            gap.first, gap.last
        ));
        Found::Nothing
    }

    /// These rows have ended.
    pub(crate) fn settle(&mut self, first: u64, last: u64) {
        let Stream { table, partition, .. } = *self.stream;
        if let Err(error) = self.context.log.settle(table, partition, first..=last) {
            // The rows would be read again after a restart.
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

    /// The line of a rejected row.
    pub(crate) fn letter(&self, sequence: u64, outcome: &Outcome) -> Option<String> {
        let Stream { table_name, partition, .. } = &*self.stream;
        let id = format!("{}:{table_name}:{partition}:{sequence}", self.context.source);
        DeadLetterLine::text_of(outcome, Some(&id))
    }

    /// Writes dead letters until they are on disk. False if they are not and the intake ends.
    pub(crate) async fn keep_letters(&mut self, lines: String, rows: usize) -> bool {
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
    pub(crate) async fn pause(&mut self) -> bool {
        let wait = FIRST_WAIT.saturating_mul(1 << self.waits.min(16)).min(LONGEST_WAIT);
        self.waits += 1;
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            _ = self.is_ending.wait_for(|is_ending| *is_ending) => false,
        }
    }

    /// Goes on only after a person has done something.
    pub(crate) fn stop(&mut self, reason: String) {
        let (table, partition) = (&self.stream.table_name, self.stream.partition);
        tracing::error!(table, partition, reason, "a partition has stopped");
        self.stream.stop(Some(reason));
        self.reading = Reading::Stopped;
        self.context.progress.send_replace(());
    }

    /// Shows why it does not go on now.
    pub(crate) fn waits(&self, reason: String) {
        let (table, partition) = (&self.stream.table_name, self.stream.partition);
        tracing::error!(table, partition, reason, "a partition waits");
        self.stream.wait(Some(reason));
    }

    /// It does no longer wait.
    pub(crate) fn goes_on(&self) {
        self.stream.wait(None);
    }

    /// The end of the log may no longer be its end.
    pub(crate) fn look_for_more(&mut self) {
        if matches!(self.reading, Reading::Idle) {
            self.reading = Reading::Ready;
        }
    }

    /// The rows of a table that cannot be written leave the segments that they share with other tables.
    pub(crate) fn set_aside(&mut self, is_aside: bool) {
        if self.is_aside != is_aside {
            self.is_aside = is_aside;
            self.context.log.set_aside(self.stream.table, self.stream.partition, is_aside);
        }
    }
}
