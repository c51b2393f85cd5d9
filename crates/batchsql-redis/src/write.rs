//! Owns sending one batch to one server: one pipeline, every reply read.
//! Must not know clusters or what the pipeline does with outcomes.

use std::ops::Range;

use batchsql_core::{Attempt, ErrorClass, Rows, SinkError, Written};
use redis::Value;
use tokio::time::{Instant, timeout_at};

use crate::classify::{late, lost, reply_error};
use crate::encode::{Encoded, Encoder};
use crate::limits::{Closed, CommandSize, SendWay, Trial, closes, is_end, refused};
use crate::link::Link;
use crate::memory::WithoutLargest;
use crate::plan::RedisPlan;
use crate::pool::Lease;
use crate::replies::{Answer, IN_TRANSACTION, RowResults};

/// Commands for one server, and the rows that they belong to.
#[derive(Default)]
pub(crate) struct ServerBatch {
    /// The encoded commands.
    bytes: Vec<u8>,
    rows: Vec<SentRow>,
    /// A row at whose size the server has closed connections before.
    pub(crate) tried: Option<Tried>,
}

/// A row at whose size the server has closed connections. That may have had another reason, so the next one decides.
#[derive(Clone, Copy)]
pub(crate) struct Tried {
    pub(crate) row: u32,
    pub(crate) closed: Closed,
}

/// A row whose commands are in the batch. Each command has one reply.
#[derive(Clone, Copy)]
struct SentRow {
    row: u32,
    /// The number of commands whose replies are skipped, and of those whose replies contain the outcome.
    skipped: u8,
    replies: u8,
    size: CommandSize,
    /// It may have run in part if the server answers with an error.
    is_script: bool,
    /// It only deletes the fields of a hash, which are all NULL.
    is_delete: bool,
    /// Where its commands end in the bytes of the batch.
    end: usize,
}

impl SentRow {
    fn commands(self) -> usize {
        usize::from(self.skipped + self.replies)
    }
}

/// The result of a batch that was sent.
#[derive(Default)]
pub(crate) struct Sent {
    values: Vec<Value>,
    /// Rows with the positions of their replies.
    answered: Vec<(SentRow, Range<usize>)>,
    /// Rows without a reply, and their errors.
    pub(crate) failed: Vec<(u32, SinkError)>,
    /// Rows that were not executed because the server closed the connection at an earlier one. They can be sent on
    /// another connection.
    pub(crate) unsent: Vec<u32>,
    /// A large row that was sent alone, and at which the connection broke without an error. Later rows with the same
    /// overwrite key must wait until its outcome is known.
    pub(crate) suspect: Option<u32>,
    /// The row of those that were not sent at whose size the server closed the connection.
    pub(crate) tried: Option<Tried>,
}

impl Sent {
    /// Each answered row, with the replies that contain its outcome.
    pub(crate) fn answers(&self) -> impl Iterator<Item = Answer<'_>> {
        self.answered.iter().map(|(sent, replies)| Answer {
            row: sent.row,
            is_script: sent.is_script,
            is_delete: sent.is_delete,
            replies: &self.values[replies.clone()],
        })
    }

    /// Records the replies to some rows; returns the number of rows with all replies.
    fn enter(&mut self, rows: &[SentRow], mut values: Vec<Value>) -> usize {
        let (mut next, end) = (self.values.len(), self.values.len() + values.len());
        self.values.append(&mut values);
        let mut complete = 0;
        for sent in rows {
            if next + sent.commands() > end {
                break;
            }
            self.answered.push((*sent, next + usize::from(sent.skipped)..next + sent.commands()));
            next += sent.commands();
            complete += 1;
        }
        complete
    }
}

impl ServerBatch {
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self { bytes: Vec::new(), rows: Vec::with_capacity(rows), tried: None }
    }

    /// Adds the commands of a row. `asking`: the node must accept them although another node still owns the
    /// slot.
    pub(crate) fn add(&mut self, row: u32, encoded: &Encoded, asking: bool) {
        let size = CommandSize::of(encoded);
        let (mut skipped, mut replies) = (0, 1);
        match &encoded.second {
            None => {
                if asking {
                    self.bytes.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
                    skipped = 1;
                }
                encoded.command.append_to(&mut self.bytes);
            }
            Some(second) => {
                self.bytes.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
                encoded.command.append_to(&mut self.bytes);
                second.append_to(&mut self.bytes);
                self.bytes.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
                replies = IN_TRANSACTION as u8;
            }
        }
        let (is_script, end) = (is_script(encoded.command.argument(0)), self.bytes.len());
        let is_delete = encoded.second.is_none() && encoded.command.argument(0) == b"HDEL";
        self.rows.push(SentRow { row, skipped, replies, size, is_script, is_delete, end });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The numbers of the rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = u32> {
        self.rows.iter().map(|sent| sent.row)
    }

    /// Sends everything and reads every reply, until the deadline if there is one. A command that may be too large
    /// for the server is sent alone, after the replies to all earlier commands, so that these replies are not lost if
    /// the server closes the connection.
    ///
    /// # Cancel safety
    /// Sent commands may be executed; the link is marked as unusable.
    pub(crate) async fn send(self, link: &mut Link, address: &str, deadline: Option<Instant>) -> Sent {
        let Self { bytes, rows, tried } = self;
        let (mut sent, mut start) = (Sent::default(), 0);
        while start < rows.len() {
            let way = link.limits.way(rows[start].size);
            if way == SendWay::AfterQuestion {
                if link.ask_limits().await.is_err() {
                    // Nothing of it was sent.
                    sent.failed.extend(rows[start..].iter().map(|later| (later.row, not_sent())));
                    break;
                }
                if let Some(refusal) = link.limits.refusal(rows[start].size.largest) {
                    sent.failed.push((rows[start].row, refusal));
                    start += 1;
                    continue;
                }
            }
            if way == SendWay::AfterTrial {
                let (size, row) = (rows[start].size, rows[start].row);
                let before = tried.filter(|tried| tried.row == row).map_or(Closed::Never, |tried| tried.closed);
                let trial = match deadline {
                    None => link.try_size(size, before).await,
                    Some(deadline) => {
                        timeout_at(deadline, link.try_size(size, before)).await.unwrap_or(Trial::Unanswered)
                    }
                };
                match trial {
                    Trial::Taken => continue,
                    Trial::ClosedEach => {
                        sent.failed.push((row, closes(size)));
                        start += 1;
                        continue;
                    }
                    Trial::Unanswered => sent.failed.extend(rows[start..].iter().map(|later| (later.row, not_sent()))),
                    Trial::Refused => {
                        sent.failed.push((row, refused(size.largest)));
                        sent.unsent.extend(rows[start + 1..].iter().map(|later| later.row));
                    }
                    Trial::Closed => {
                        let closed = if before == Closed::Never { Closed::Once } else { Closed::Twice };
                        sent.tried = Some(Tried { row, closed });
                        sent.unsent.extend(rows[start..].iter().map(|later| later.row));
                    }
                }
                break;
            }
            let together = |row: &&SentRow| link.limits.way(row.size) == SendWay::Together;
            let end = match way {
                SendWay::Together => start + rows[start..].iter().take_while(together).count(),
                _ => start + 1,
            };
            let part = &rows[start..end];
            let replies = part.iter().map(|sent| sent.commands()).sum();
            let begin = start.checked_sub(1).map_or(0, |before| rows[before].end);
            let bytes = &bytes[begin..rows[end - 1].end];
            let answered = match deadline {
                None => Ok(link.send(bytes, replies).await),
                Some(deadline) => timeout_at(deadline, link.send(bytes, replies)).await,
            };
            match answered {
                Ok(Ok(values)) => {
                    sent.enter(part, values);
                    if sent.leaves_a_transaction() {
                        link.mark_unusable();
                    }
                }
                Ok(Err(values)) => {
                    sent.break_off((part, &rows[end..]), values, &lost(address), way != SendWay::Together);
                    break;
                }
                Err(_) => {
                    sent.break_off((part, &rows[end..]), link.replies_so_far(), &late(address), false);
                    break;
                }
            }
            start = end;
        }
        sent
    }
}

impl Sent {
    /// Whether a transaction is still open because it could not be ended and the server did not cancel it: the
    /// next batch would become part of it.
    fn leaves_a_transaction(&self) -> bool {
        let is_open = |replies: &[Value]| match replies {
            [_, _, _, Value::ServerError(error)] => error.code() != "EXECABORT",
            _ => false,
        };
        self.answers().any(|answer| is_open(answer.replies))
    }

    /// Records the replies received before the connection broke or the deadline passed; `error` applies to the other
    /// rows. `is_alone`: the last command may have been too large.
    fn break_off(
        &mut self,
        (part, later): (&[SentRow], &[SentRow]),
        values: Vec<Value>,
        error: &SinkError,
        is_alone: bool,
    ) {
        let is_refusal = matches!(values.last(), Some(Value::ServerError(error)) if is_end(error));
        let mut answers = values;
        if is_refusal {
            answers.pop();
        }
        let complete = self.enter(part, answers);
        match part[complete..].split_first() {
            Some((culprit, rest)) if is_refusal => {
                self.failed.push((culprit.row, refused(culprit.size.largest)));
                self.unsent.extend(rest.iter().chain(later).map(|sent| sent.row));
            }
            Some((row, [])) if is_alone => {
                self.failed.push((row.row, error.clone()));
                self.suspect = Some(row.row);
                self.unsent.extend(later.iter().map(|sent| sent.row));
            }
            _ => {
                self.failed.extend(part[complete..].iter().map(|sent| (sent.row, error.clone())));
                self.failed.extend(later.iter().map(|sent| (sent.row, not_sent())));
            }
        }
    }
}

/// Whether a command runs a script or a function.
fn is_script(word: &[u8]) -> bool {
    let begins = |name: &[u8]| word.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    begins(b"EVAL") || begins(b"FCALL") || begins(b"TFCALL")
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
    let mut results = RowResults::default();
    let mut encoder = Encoder::new(plan, rows);
    let mut batch = ServerBatch::with_capacity(rows.len());
    for row in 0..rows.len() {
        match encoder.row(row) {
            Ok(encoded) => {
                batch.add(number(row), &encoded, false);
                encoder.recycle(encoded);
            }
            Err(error) => results.failed.push((number(row), error)),
        }
    }
    if !batch.is_empty() {
        attempt.defer();
    }
    let mut is_first = true;
    let mut without_largest = WithoutLargest::new();
    while !batch.is_empty() {
        // Only now, so that a broken link is replaced before anything is sent.
        let server = lease.pool.server().await;
        let link = match server {
            Ok(server) => lease.link(&server).await.map(|link| (link, server.addr().to_string())),
            Err(error) => Err(error),
        };
        let (link, address) = match link {
            Ok(link) => link,
            Err(error) if is_first => return Err(error),
            // Some rows already have their outcomes; these were not sent.
            Err(error) => {
                results.failed.extend(batch.rows().map(|row| (row, error.clone())));
                break;
            }
        };
        if is_first && !attempt.begin() {
            return Err(given_up());
        }
        is_first = false;
        let sent = batch.send(link, &address, None).await;
        for answer in sent.answers() {
            if let Some(redirected) = results.enter(plan, answer) {
                results.failed.push((answer.row, reply_error(redirected, answer.is_script)));
            }
        }
        // Each third iteration gives a row its outcome or is without the largest of those that found no memory, so the loop ends.
        batch = ServerBatch::with_capacity(sent.unsent.len());
        batch.tried = sent.tried;
        // It is large, so it is encoded only once.
        let suspect = sent.suspect.map(|suspect| encoder.overwrite_key(suspect as usize));
        for row in sent.unsent {
            if suspect.as_ref().is_some_and(|earlier| must_wait(&mut encoder, earlier.as_deref(), row)) {
                results.failed.push((row, not_sent()));
                continue;
            }
            match encoder.row(row as usize) {
                Ok(encoded) => batch.add(row, &encoded, false),
                Err(error) => results.failed.push((row, error)),
            }
        }
        results.failed.extend(sent.failed);
        if batch.is_empty() {
            let smaller = without_largest.next(&mut results, plan, number(rows.len()), &mut encoder);
            if !smaller.is_empty() {
                // Its buffer at the server has the size of the largest row.
                link.mark_unusable();
            }
            for row in smaller {
                match encoder.row(row as usize) {
                    Ok(encoded) => batch.add(row, &encoded, false),
                    Err(error) => results.failed.push((row, error)),
                }
            }
        }
    }
    if lease.pool.options().password.is_some() {
        results.failed.iter_mut().for_each(|(_, error)| ask_again(error));
    }
    settle(results, plan, rows)
}

/// The next connection uses another password.
pub(crate) fn ask_again(error: &mut SinkError) {
    if error.code() == Some("NOAUTH") {
        let text = "the server requires a password again; the provider is called for the next connection";
        *error = SinkError::with_code(ErrorClass::Transient, "NOAUTH", text);
    }
}

/// Whether a row may overwrite the same data as an earlier one with an unknown outcome. `earlier`: what that one
/// overwrites.
pub(crate) fn must_wait(encoder: &mut Encoder<'_>, earlier: Option<&[u8]>, row: u32) -> bool {
    let Some(earlier) = earlier else { return true };
    encoder.overwrite_key(row as usize).is_none_or(|own| own == earlier)
}

/// The connection broke, or the deadline passed, before the row was sent.
pub(crate) fn not_sent() -> SinkError {
    SinkError::new(ErrorClass::Transient, "the connection to the server was closed before the row was sent")
}

/// The pipeline abandoned the batch before anything was sent.
pub(crate) fn given_up() -> SinkError {
    SinkError::new(ErrorClass::Transient, "the batch was abandoned before it was sent")
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

#[cfg(test)]
mod tests {
    use super::is_script;

    #[test]
    fn scripts_are_known_by_their_word() {
        let check = |word: &str, expected| assert_eq!(is_script(word.as_bytes()), expected, "{word}");
        check("EVAL", true);
        check("evalsha", true);
        check("FCALL", true);
        check("TFCALL", true);
        check("TFCALLASYNC", true);
        check("SET", false);
    }
}
