//! Owns what the replies of a batch mean for its rows, and how they are told to the pipeline.
//! Must not know connections or how commands are made.

use std::collections::HashMap;

use batchsql_core::{ErrorClass, SinkError, Written};
use redis::{ServerError, Value};

use crate::classify::reply_error;
use crate::plan::{IgnoredReply, RedisPlan};

/// Replies of a command in a `MULTI` with another one: `OK`, `QUEUED`, `QUEUED`, and those of `EXEC`.
pub(crate) const IN_TRANSACTION: usize = 4;

/// Rows of a batch that were not simply written, by number.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) ignored: Vec<u32>,
    /// The class says what became of them: `Unknown` may be written, all others are not.
    pub(crate) failed: Vec<(u32, SinkError)>,
}

impl Tally {
    /// Enters the replies to one row; returns the error of a row that another node of the cluster is to be asked
    /// about, which is not entered.
    pub(crate) fn enter<'v>(&mut self, plan: &RedisPlan, row: u32, replies: &'v [Value]) -> Option<&'v ServerError> {
        match first_error(replies) {
            Some(error) if matches!(error.code(), "MOVED" | "ASK") => return Some(error),
            Some(error) => self.failed.push((row, reply_error(error))),
            None => match (plan.ignored, replies.last()) {
                (Some(IgnoredReply::Nil), Some(Value::Nil)) | (Some(IgnoredReply::Zero), Some(Value::Int(0))) => {
                    self.ignored.push(row);
                }
                _ => {}
            },
        }
        None
    }

    /// What is told to the pipeline about a batch of so many rows. `place` says what a row overwrites.
    ///
    /// # Errors
    /// No row was written, and all of them for the same kind of reason that is not theirs.
    pub(crate) fn settle(
        mut self,
        plan: &RedisPlan,
        rows: u32,
        place: impl FnMut(u32) -> Option<Vec<u8>>,
    ) -> Result<Written, SinkError> {
        // In a cluster the nodes answer in any order.
        self.ignored.sort_unstable();
        self.failed.sort_by_key(|(row, _)| *row);
        let mut written = Written::default();
        if let Some((_, first)) = self.failed.first()
            && self.failed.len() == rows as usize
            && self.failed.iter().all(|(_, error)| is_same_kind(error, first))
        {
            // Memory that is short is waited for longer than other things.
            let slow = self.failed.iter().find(|(_, error)| error.class() == ErrorClass::Resource);
            return Err(slow.map_or(first, |(_, error)| error).clone());
        }
        let undone = self.undone(plan, rows, place);
        for (row, error) in self.failed {
            match error.class() {
                ErrorClass::Transient | ErrorClass::Resource if undone.contains(&row) => {
                    written.rejected.push((row, too_late(&error)));
                }
                ErrorClass::Transient | ErrorClass::Resource | ErrorClass::Unknown => {
                    written.unfinished.push((row, error));
                }
                _ => written.rejected.push((row, error)),
            }
        }
        written.ignored = self.ignored;
        Ok(written)
    }

    /// Rows that were not written and must not be any more, because a later row overwrote what they would write.
    fn undone(&self, plan: &RedisPlan, rows: u32, mut place: impl FnMut(u32) -> Option<Vec<u8>>) -> Vec<u32> {
        let is_passing = |error: &SinkError| error.is_retryable();
        if !plan.overwrites || !self.failed.iter().any(|(_, error)| is_passing(error)) {
            return Vec::new();
        }
        let mut failed = self.failed.iter().rev().peekable();
        let mut last_written: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut undone = Vec::new();
        for row in (0..rows).rev() {
            let error = failed.next_if(|(number, _)| *number == row).map(|(_, error)| error);
            let Some(place) = place(row) else { continue };
            match error {
                Some(error) if is_passing(error) => {
                    if last_written.contains_key(&place) {
                        undone.push(row);
                    }
                }
                // It is written again after the rows before it.
                Some(error) if error.class() == ErrorClass::Unknown && plan.is_repeatable => {}
                Some(error) if error.class() != ErrorClass::Unknown => {}
                _ => drop(last_written.entry(place).or_insert(row)),
            }
        }
        undone
    }
}

/// The error that says what became of a row.
fn first_error(replies: &[Value]) -> Option<&ServerError> {
    let error = |reply: &'_ Value| matches!(reply, Value::ServerError(_));
    let found = replies.iter().find(|reply| error(reply)).or_else(|| match replies {
        // Errors of commands that ran stand inside the reply of EXEC.
        [_, _, _, Value::Array(inner)] => inner.iter().find(|reply| error(reply)),
        _ => None,
    });
    match found {
        Some(Value::ServerError(error)) => Some(error),
        _ => None,
    }
}

/// Whether two errors of a batch ask for the same: trying again, or a look at the server.
fn is_same_kind(a: &SinkError, b: &SinkError) -> bool {
    let kind = |error: &SinkError| match error.class() {
        ErrorClass::Transient | ErrorClass::Resource => 1,
        ErrorClass::Permission | ErrorClass::Schema => 2,
        ErrorClass::Unknown => 3,
        _ => 4,
    };
    kind(a) == kind(b) && kind(a) != 4
}

fn too_late(error: &SinkError) -> SinkError {
    let text =
        format!("a later row with the same key was written, so this one is not tried again; it failed with: {error}");
    match error.code() {
        Some(code) => SinkError::with_code(error.class(), code, text),
        None => SinkError::new(error.class(), text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use batchsql_core::{ColumnType, Conflict, Schema};

    fn plan(command: impl Into<Command>, conflict: Conflict) -> RedisPlan {
        let schema = Schema::builder("t").column("k", ColumnType::I64).column("v", ColumnType::Text);
        RedisPlan::make(&schema.on_conflict(conflict).build().unwrap(), Some(&command.into())).unwrap()
    }

    fn error(line: &str) -> Value {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap()
    }

    /// What is told of rows with these replies; the row's key is its place in `keys`.
    fn told(plan: &RedisPlan, replies: &[Value], keys: &str) -> Result<[Vec<u32>; 3], ErrorClass> {
        let mut tally = Tally::default();
        for (row, reply) in (0..).zip(replies) {
            tally.enter(plan, row, std::slice::from_ref(reply));
        }
        let place = |row: u32| Some(vec![keys.as_bytes()[row as usize]]);
        let written = tally.settle(plan, replies.len() as u32, place).map_err(|error| error.class())?;
        let numbers = |rows: &[(u32, SinkError)]| rows.iter().map(|(row, _)| *row).collect::<Vec<_>>();
        Ok([written.ignored.clone(), numbers(&written.rejected), numbers(&written.unfinished)])
    }

    #[test]
    fn each_reply_is_the_outcome_of_its_row() {
        let set = plan(Command::set("k", "v"), Conflict::None);
        let nx = plan(Command::set("k", "v"), Conflict::ignore(["k"]));
        let (ok, wrong, oom) = (Value::Okay, error("WRONGTYPE x"), error("OOM x"));
        assert_eq!(told(&set, &[ok.clone(), wrong.clone(), oom.clone()], "abc"), Ok([vec![], vec![1], vec![2]]));
        assert_eq!(told(&set, &[Value::Nil, ok.clone()], "ab"), Ok([vec![], vec![], vec![]]), "nil is no news here");
        assert_eq!(told(&nx, &[Value::Nil, ok.clone()], "ab"), Ok([vec![0], vec![], vec![]]));
        assert_eq!(told(&set, &[wrong.clone(), wrong], "ab"), Ok([vec![], vec![0, 1], vec![]]));
    }

    #[test]
    fn a_batch_that_was_refused_as_a_whole_is_an_error() {
        let set = plan(Command::set("k", "v"), Conflict::None);
        let check = |lines: &[&str], expected| {
            let replies: Vec<Value> = lines.iter().map(|line| error(line)).collect();
            assert_eq!(told(&set, &replies, "abc"), expected, "{lines:?}");
        };
        check(&["LOADING x", "LOADING x"], Err(ErrorClass::Transient));
        check(&["LOADING x", "OOM x"], Err(ErrorClass::Resource));
        check(&["NOPERM x", "NOPERM x"], Err(ErrorClass::Permission));
        check(&["NOPERM x", "OOM x"], Ok([vec![], vec![0], vec![1]]));
        check(&["ERR x", "OOM x"], Ok([vec![], vec![0], vec![1]]));
    }

    #[test]
    fn an_older_row_is_never_written_over_a_newer_one() {
        let oom = || error("OOM x");
        let check = |command: Command, conflict, expected| {
            // Rows 0 and 2 have one key, and only row 2 was written.
            assert_eq!(told(&plan(command, conflict), &[oom(), oom(), Value::Int(1)], "aba"), Ok(expected));
        };
        check(Command::set("k", "v").into(), Conflict::None, [vec![], vec![0], vec![1]]);
        check(Command::raw("APPEND").into(), Conflict::None, [vec![], vec![0], vec![1]]);
        // Nothing is undone by these.
        check(Command::set("k", "v").into(), Conflict::ignore(["k"]), [vec![], vec![], vec![0, 1]]);
        check(Command::lpush("k", "v").into(), Conflict::None, [vec![], vec![], vec![0, 1]]);
        // Both are tried again, in their order.
        let set = plan(Command::set("k", "v"), Conflict::None);
        assert_eq!(told(&set, &[oom(), Value::Okay, oom()], "aba"), Ok([vec![], vec![], vec![0, 2]]));
    }

    #[test]
    fn the_commands_of_a_transaction_are_one_row() {
        let hash = plan(Command::hash(), Conflict::replace(["k"]));
        let check = |replies: [Value; IN_TRANSACTION], expected: Option<ErrorClass>| {
            let mut tally = Tally::default();
            assert!(tally.enter(&hash, 0, &replies).is_none());
            assert_eq!(tally.failed.first().map(|(_, error)| error.class()), expected);
        };
        let queued = || Value::SimpleString("QUEUED".into());
        check([Value::Okay, queued(), queued(), Value::Array(vec![Value::Int(1), Value::Int(0)])], None);
        let wrong = Value::Array(vec![error("WRONGTYPE x"), error("WRONGTYPE x")]);
        check([Value::Okay, queued(), queued(), wrong], Some(ErrorClass::Row));
        check([Value::Okay, error("OOM x"), queued(), error("EXECABORT x")], Some(ErrorClass::Resource));
    }

    #[test]
    fn redirections_are_followed_not_told() {
        let set = plan(Command::set("k", "v"), Conflict::None);
        let mut tally = Tally::default();
        let moved = [error("MOVED 1 h:1")];
        assert_eq!(tally.enter(&set, 0, &moved).map(ServerError::code), Some("MOVED"));
        assert!(tally.failed.is_empty());
    }
}
