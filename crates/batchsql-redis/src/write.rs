//! Owns the way of one batch to one server and back: one pipeline, every reply read.
//! Must not know clusters or what the pipeline does with outcomes.

use batchsql_core::{Attempt, ErrorClass, Rows, SinkError, Written};
use redis::{Pipeline, RedisResult, Value};

use crate::classify::{lost, reply_error};
use crate::encode::{Encoded, Encoder};
use crate::link::{Lease, Link};
use crate::plan::RedisPlan;
use crate::replies::{IN_TRANSACTION, RowResults};

/// Commands for one server, and whose they are.
pub(crate) struct ServerBatch {
    pipeline: Pipeline,
    replies: usize,
    rows: Vec<SentRow>,
    has_transactions: bool,
}

/// A row whose commands are in the pipeline.
#[derive(Clone, Copy)]
struct SentRow {
    row: u32,
    /// Replies to be skipped, and those that carry the outcome.
    skipped: u8,
    replies: u8,
}

impl ServerBatch {
    pub(crate) fn with_capacity(commands: usize) -> Self {
        let (pipeline, rows) = (Pipeline::with_capacity(commands), Vec::with_capacity(commands));
        Self { pipeline, replies: 0, rows, has_transactions: false }
    }

    /// Adds the commands of a row. `asking`: the node is to take them although the slot is still another's.
    pub(crate) fn add(&mut self, row: u32, encoded: Encoded, asking: bool) {
        let replies = match encoded {
            Encoded { command, second: None } => {
                if asking {
                    self.pipeline.cmd("ASKING");
                }
                self.pipeline.add_command(command);
                1
            }
            Encoded { command, second: Some(second) } => {
                self.has_transactions = true;
                self.pipeline.cmd("MULTI").add_command(command).add_command(second).cmd("EXEC");
                IN_TRANSACTION as u8
            }
        };
        let sent = SentRow { row, skipped: u8::from(asking && replies == 1), replies };
        self.replies += usize::from(sent.skipped + sent.replies);
        self.rows.push(sent);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The numbers of the rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = u32> {
        self.rows.iter().map(|sent| sent.row)
    }

    /// Sends everything and reads every reply.
    ///
    /// # Cancel safety
    /// What was sent may be executed; the link is of no more use, and knows it.
    pub(crate) async fn send(&self, link: &mut Link) -> RedisResult<Vec<Value>> {
        let values = link.send(&self.pipeline, self.replies).await?;
        // A transaction that could not be ended, unless the server gave it up, would take in the next batch.
        let is_open = |replies: &[Value]| match replies {
            [_, _, _, Value::ServerError(error)] => error.code() != "EXECABORT",
            _ => false,
        };
        if self.has_transactions && self.sort(&values).any(|(_, replies)| is_open(replies)) {
            link.mark_unusable();
        }
        Ok(values)
    }

    /// Each row with the replies that carry its outcome.
    pub(crate) fn sort<'v>(&self, mut values: &'v [Value]) -> impl Iterator<Item = (u32, &'v [Value])> {
        self.rows.iter().map(move |sent| {
            let (_, rest) = values.split_at(usize::from(sent.skipped).min(values.len()));
            let (replies, rest) = rest.split_at(usize::from(sent.replies).min(rest.len()));
            values = rest;
            (sent.row, replies)
        })
    }
}

/// Writes a batch to the only server.
///
/// # Cancel safety
/// See [`ServerBatch::send`].
pub(crate) async fn write_to_server(
    lease: &mut Lease,
    plan: &RedisPlan,
    rows: Rows<'_>,
    attempt: &Attempt,
) -> Result<Written, SinkError> {
    let server = lease.pool.options().seeds[0].clone();
    let mut results = RowResults::default();
    let batch = encode(plan, rows, &mut results);
    if !batch.is_empty() {
        attempt.defer();
        // Only now: a link that broke meanwhile is replaced before anything is sent.
        let link = lease.link(&server).await?;
        if !attempt.begin() {
            return Err(given_up());
        }
        let replies = batch.send(link).await.map_err(|_| lost(&server.addr().to_string()))?;
        for (row, replies) in batch.sort(&replies) {
            if let Some(redirected) = results.enter(plan, row, replies) {
                results.failed.push((row, reply_error(redirected)));
            }
        }
    }
    settle(results, plan, rows)
}

/// The pipeline gave the batch up before anything was sent.
pub(crate) fn given_up() -> SinkError {
    SinkError::new(ErrorClass::Transient, "the batch was given up before it was sent")
}

fn encode(plan: &RedisPlan, rows: Rows<'_>, results: &mut RowResults) -> ServerBatch {
    let mut encoder = Encoder::new(plan, rows);
    let mut batch = ServerBatch::with_capacity(rows.len());
    for row in 0..rows.len() {
        match encoder.row(row) {
            Ok(encoded) => batch.add(number(row), encoded, false),
            Err(error) => results.failed.push((number(row), error)),
        }
    }
    batch
}

/// Reports the outcomes of the rows to the pipeline.
pub(crate) fn settle(results: RowResults, plan: &RedisPlan, rows: Rows<'_>) -> Result<Written, SinkError> {
    let mut encoder = None;
    let overwrite_key = |row: u32| encoder.get_or_insert_with(|| Encoder::new(plan, rows)).overwrite_key(row as usize);
    results.settle(plan, number(rows.len()), overwrite_key)
}

/// Numbers of rows are small: the pipeline's buffer counts them in 32 bits.
pub(crate) fn number(row: usize) -> u32 {
    u32::try_from(row).expect("a batch has less than 4 billion rows")
}
