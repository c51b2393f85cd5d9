//! Owns how the lines of a request become rows in memory as they come, and what is answered about each.
//! Must not know HTTP, or the durable intake, which stores the lines of a request together (`held`).

use std::collections::VecDeque;
use std::time::Duration;

use batchsql::{DynRow, Outcome, OutcomeKind, Receipt};

use crate::http::idempotency::{Guard, Mark, OtherBody};
use crate::http::progress::{Progress, Rejection};
use crate::intake::{Intake, Refusal};
use crate::table::target::Target;

/// Rows that are submitted together.
const TOGETHER: usize = 64;
/// Text of the rows that are submitted together.
const TOGETHER_BYTES: usize = 1 << 20;
/// Rows of a request that wait for their outcome.
const OUTSTANDING: usize = 10_000;

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Accepted,
    /// On disk.
    Logged,
    Written,
}

/// Why the rest of a request was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    Full,
    /// The log, or its disk.
    LogFull,
    Closed,
    Undetermined(String),
    /// The key was used for another body.
    OtherBody,
    /// Another request with the key is being stored.
    InUse,
    /// A request with a key has rows with more bytes than this, and they are stored together.
    TooLarge(usize),
}

impl From<OtherBody> for Stop {
    fn from(_: OtherBody) -> Self {
        Self::OtherBody
    }
}

/// A line that was read and is not accepted yet.
struct Pending {
    line: u64,
    /// Why it is no row; otherwise its row waits.
    refused: Option<String>,
    mark: Option<Mark>,
}

/// One request.
pub(crate) struct Ingest<'a> {
    intake: &'a Intake,
    target: &'a Target,
    wait: Wait,
    capacity_time: Duration,
    most_rejections: usize,
    key: Option<Box<Guard>>,
    progress: Progress,
    pending: VecDeque<Pending>,
    /// Of the pending lines that are rows, in their order.
    rows: VecDeque<DynRow>,
    bytes: usize,
    receipts: VecDeque<(u64, Receipt)>,
}

impl<'a> Ingest<'a> {
    pub(crate) fn new(
        (intake, target): (&'a Intake, &'a Target),
        wait: Wait,
        (capacity_time, most_rejections): (Duration, usize),
        key: Option<Box<Guard>>,
    ) -> Self {
        let progress = key.as_ref().map(|key| key.before().clone()).unwrap_or_default();
        Self {
            intake,
            target,
            wait,
            capacity_time,
            most_rejections,
            key,
            progress,
            pending: VecDeque::new(),
            rows: VecDeque::new(),
            bytes: 0,
            receipts: VecDeque::new(),
        }
    }

    /// The next line.
    ///
    /// # Errors
    /// The rest of the request is not accepted, from the line behind the progress on.
    pub(crate) async fn line(&mut self, line: u64, text: &[u8]) -> Result<(), Stop> {
        let mark = match &mut self.key {
            None => None,
            Some(key) => match key.line(line, text)? {
                Some(mark) => Some(mark),
                None => return Ok(()),
            },
        };
        let refused = match self.target.row_of_json(text) {
            Ok(row) => {
                self.rows.push_back(row);
                self.bytes += text.len();
                None
            }
            Err(reason) => Some(reason),
        };
        self.pending.push_back(Pending { line, refused, mark });
        if self.pending.len() >= TOGETHER || self.bytes >= TOGETHER_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// The body is over: everything is submitted, and what the request waits for has come.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) async fn end(&mut self) -> Result<(), Stop> {
        if let Some(key) = &self.key {
            key.end()?;
        }
        self.flush().await?;
        if let Some(key) = &mut self.key {
            key.complete();
        }
        Ok(())
    }

    /// Submits the rows that were read, for example before a part of the body that is awaited.
    pub(crate) async fn flush(&mut self) -> Result<(), Stop> {
        loop {
            let result = if self.wait == Wait::Written {
                self.submit_tracked().await
            } else {
                self.intake.submit(&mut self.rows, self.capacity_time).await
            };
            self.settle();
            match result {
                Ok(()) => return Ok(()),
                // The row at the front is at fault: the pipeline has checks that need no database.
                Err(Refusal::Row(reason)) => {
                    self.rows.pop_front();
                    if let Some(front) = self.pending.front_mut() {
                        front.refused = Some(reason);
                    }
                    self.settle();
                }
                Err(Refusal::Full) => return Err(Stop::Full),
                Err(Refusal::FullBefore(_)) => unreachable!("rows in memory are accepted in their order"),
                Err(Refusal::Closed) => return Err(Stop::Closed),
                Err(Refusal::Undetermined(why)) => return Err(Stop::Undetermined(why)),
            }
        }
    }

    async fn submit_tracked(&mut self) -> Result<(), Refusal> {
        while let Some(row) = self.rows.front() {
            let receipt = match self.intake.submit_tracked(row, self.capacity_time).await {
                Some(receipt) => receipt?,
                None => unreachable!("a request may not wait for the outcome of rows of a durable intake"),
            };
            self.rows.pop_front();
            // Before it is settled, as lines behind it may be settled too: those that are no rows.
            let line = self.pending.iter().find(|pending| pending.refused.is_none()).map(|pending| pending.line);
            self.settle();
            self.receipts.push_back((line.expect("a row that waits has its line"), receipt));
            if self.receipts.len() > OUTSTANDING {
                self.await_front().await;
            }
        }
        Ok(())
    }

    /// Notes what became of the pending lines before the first row that was not accepted.
    fn settle(&mut self) {
        let rows = self.pending.iter().filter(|pending| pending.refused.is_none()).count();
        let mut accepted = rows - self.rows.len();
        let mut has_changed = false;
        while let Some(front) = self.pending.front() {
            if front.refused.is_none() && accepted == 0 {
                break;
            }
            let Some(Pending { line, refused, mark }) = self.pending.pop_front() else { break };
            match refused {
                Some(reason) => self.progress.refuse(line, reason, self.most_rejections),
                None => {
                    self.progress.accept(line);
                    accepted -= 1;
                }
            }
            if let (Some(key), Some(mark)) = (&mut self.key, mark) {
                key.reach(mark);
            }
            has_changed = true;
        }
        if self.pending.is_empty() {
            self.bytes = 0;
        }
        if let (Some(key), true) = (&mut self.key, has_changed) {
            key.keep(self.progress.clone());
        }
    }

    /// Waits for the outcomes of all rows that were accepted, if the request asks for them.
    pub(crate) async fn await_outcomes(&mut self) {
        while !self.receipts.is_empty() {
            self.await_front().await;
        }
        if let Some(key) = &mut self.key {
            key.keep(self.progress.clone());
        }
    }

    async fn await_front(&mut self) {
        let Some((line, receipt)) = self.receipts.front_mut() else { return };
        let (line, outcome) = (*line, receipt.await);
        self.receipts.pop_front();
        let rejection = outcome.failure().is_some().then(|| rejection(line, &outcome));
        self.progress.end(outcome.kind(), rejection, self.most_rejections);
    }

    /// An earlier request with the key has accepted lines.
    pub(crate) fn is_repeated(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.before().lines > 0)
    }

    /// What became of the lines so far.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }
}

fn rejection(line: u64, outcome: &Outcome) -> Rejection {
    let error = outcome.failure().and_then(|failed| failed.error());
    let reason = match (error, outcome.kind()) {
        (Some(error), _) => error.to_string(),
        (None, OutcomeKind::Purged) => "it was given up before it was sent".to_owned(),
        (None, _) => "it was not written".to_owned(),
    };
    Rejection { line, outcome: outcome.kind().name(), reason }
}

/// A request that ends early has still accepted what it has accepted.
impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        if self.key.is_some() {
            self.settle();
        }
    }
}
