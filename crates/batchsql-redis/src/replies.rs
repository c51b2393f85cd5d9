//! Owns the outcomes of rows from the replies of a batch, and their report to the pipeline.
//! Must not know connections or how commands are encoded.

use std::collections::{HashMap, HashSet};

use batchsql_core::{ErrorClass, SinkError, Written};
use redis::{ServerError, Value};

use crate::classify::reply_error;
use crate::plan::RedisPlan;
use crate::shape::{IgnoredReply, Shape};

/// Replies of a command in a `MULTI` with another one: `OK`, `QUEUED`, `QUEUED`, and those of `EXEC`.
pub(crate) const IN_TRANSACTION: usize = 4;

/// The replies to one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'v> {
    pub(crate) row: u32,
    /// The row runs a script.
    pub(crate) is_script: bool,
    /// The row is one `HDEL`.
    pub(crate) is_delete: bool,
    /// The replies that contain its outcome.
    pub(crate) replies: &'v [Value],
}

/// Rows of a batch that were not simply written, by number.
#[derive(Debug, Default)]
pub(crate) struct RowResults {
    pub(crate) ignored: Vec<u32>,
    /// The class determines the outcome: `Unknown` may be written, all others are not.
    pub(crate) failed: Vec<(u32, SinkError)>,
}

impl RowResults {
    /// Records the replies to one row. Returns the error of a row that must be sent to another node of the
    /// cluster; it is not recorded.
    pub(crate) fn enter<'v>(&mut self, plan: &RedisPlan, answer: Answer<'v>) -> Option<&'v ServerError> {
        let Answer { row, is_script, is_delete, replies } = answer;
        match row_result(replies) {
            RowResult::Refused(error) if matches!(error.code(), "MOVED" | "ASK") => return Some(error),
            RowResult::Refused(error)
                if is_delete && matches!(plan.shape, Shape::Hash { .. }) && is_of_delete(error) =>
            {
                self.failed.push((row, no_delete()));
            }
            RowResult::Refused(error) => self.failed.push((row, reply_error(error, is_script))),
            RowResult::NoDelete => self.failed.push((row, no_delete())),
            RowResult::InPart => self.failed.push((row, in_part())),
            RowResult::Done => match (plan.ignored, replies.last()) {
                (Some(IgnoredReply::Nil), Some(Value::Nil)) | (Some(IgnoredReply::Zero), Some(Value::Int(0))) => {
                    self.ignored.push(row);
                }
                _ => {}
            },
        }
        None
    }

    /// The outcomes of a batch of `rows` rows. `overwrite_key` returns what a row overwrites.
    ///
    /// # Errors
    /// No row was written, and all failed with the same kind of error that is not the fault of a row.
    pub(crate) fn settle(
        mut self,
        plan: &RedisPlan,
        rows: u32,
        overwrite_key: impl FnMut(u32) -> Option<Vec<u8>>,
    ) -> Result<Written, SinkError> {
        // In a cluster the nodes answer in any order.
        self.ignored.sort_unstable();
        self.failed.sort_by_key(|(row, _)| *row);
        let mut written = Written::default();
        if let Some((_, first)) = self.failed.first()
            && self.failed.len() == rows as usize
            && self.failed.iter().all(|(_, error)| is_same_kind(error, first))
        {
            return Err(first.clone());
        }
        let undone = self.undone(&[], plan, rows, overwrite_key);
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

    /// Rows that were not written and must not be retried, because a later row overwrote their data.
    /// `redirected`: rows that are not recorded, because they are being sent to another node.
    pub(crate) fn undone(
        &self,
        redirected: &[u32],
        plan: &RedisPlan,
        rows: u32,
        mut overwrite_key: impl FnMut(u32) -> Option<Vec<u8>>,
    ) -> HashSet<u32> {
        let is_transient = |error: &SinkError| error.is_retryable();
        if !plan.overwrites || redirected.is_empty() && !self.failed.iter().any(|(_, error)| is_transient(error)) {
            return HashSet::new();
        }
        let failed = self.failed.iter().map(|(row, error)| (*row, error.class()));
        let classes: HashMap<u32, ErrorClass> =
            failed.chain(redirected.iter().map(|row| (*row, ErrorClass::Transient))).collect();
        let mut overwritten = HashSet::new();
        let mut undone = HashSet::new();
        for row in (0..rows).rev() {
            let Some(key) = overwrite_key(row) else { continue };
            match classes.get(&row) {
                Some(ErrorClass::Transient | ErrorClass::Resource) => {
                    if overwritten.contains(&key) {
                        undone.insert(row);
                    }
                }
                // It is retried after the earlier rows.
                Some(ErrorClass::Unknown) if plan.is_repeatable => {}
                None | Some(ErrorClass::Unknown) => drop(overwritten.insert(key)),
                Some(_) => {}
            }
        }
        undone
    }
}

/// The result of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum RowResult<'v> {
    Done,
    /// Nothing of it was executed.
    Refused(&'v ServerError),
    /// Nothing of it was executed: the user may run its first command, but not the `HDEL` for its NULLs.
    NoDelete,
    /// One of its commands was executed, or that is unknown.
    InPart,
}

fn row_result(replies: &[Value]) -> RowResult<'_> {
    let [multi, first, second, exec] = replies else { return replies.first().map_or(RowResult::InPart, single) };
    let queued = [first, second].into_iter().find_map(error_of);
    match (error_of(multi), exec) {
        // Without `MULTI` (users without the right, or proxies), each command was executed separately.
        (Some(_), _) => both(first, second),
        // Errors of executed commands are inside the reply of EXEC.
        (None, Value::Array(inner)) => match (&**inner, queued) {
            ([first, second], None) => both(first, second),
            _ => RowResult::InPart,
        },
        (None, Value::ServerError(_)) if error_of(first).is_none() && is_without_right(second) => RowResult::NoDelete,
        // The transaction was not executed; the error of the command that was not queued gives the reason.
        (None, Value::ServerError(error)) => RowResult::Refused(queued.unwrap_or(error)),
        _ => RowResult::InPart,
    }
}

fn both<'v>(first: &'v Value, second: &'v Value) -> RowResult<'v> {
    match (single(first), single(second)) {
        (RowResult::Done, RowResult::Done) => RowResult::Done,
        (RowResult::Refused(error), RowResult::Refused(_)) => RowResult::Refused(error),
        _ => RowResult::InPart,
    }
}

fn single(reply: &Value) -> RowResult<'_> {
    match reply {
        Value::ServerError(error) => RowResult::Refused(error),
        // The reply of a transaction that was not ended: it is not executed yet.
        Value::SimpleString(word) if word == "QUEUED" => RowResult::InPart,
        _ => RowResult::Done,
    }
}

fn error_of(reply: &Value) -> Option<&ServerError> {
    match reply {
        Value::ServerError(error) => Some(error),
        _ => None,
    }
}

fn is_without_right(reply: &Value) -> bool {
    error_of(reply).is_some_and(|error| error.code() == "NOPERM")
}

/// Whether the user has no right to `HDEL`. The code is the same without a right to the key, and only the text has the command.
fn is_of_delete(error: &ServerError) -> bool {
    let has_command = |text: &str| text.to_ascii_lowercase().contains("'hdel'");
    error.code() == "NOPERM" && error.details().is_some_and(has_command)
}

/// An error of the row: those without NULL can be written.
fn no_delete() -> SinkError {
    let text = "the user may not run HDEL, which deletes the fields that are NULL in a row of a hash; allow it (ACL \
                SETUSER), or declare columns that are not nullable";
    SinkError::with_code(ErrorClass::Row, "NOPERM", text)
}

fn in_part() -> SinkError {
    let text = "the server executed only a part of the row's commands, or perhaps none; it needs MULTI, EXEC, HSET \
                and HDEL for hashes with NULL";
    SinkError::new(ErrorClass::Unknown, text)
}

/// Whether two errors of a batch need the same action: a retry, or a check of the server. Rows with different errors have
/// each its own.
fn is_same_kind(a: &SinkError, b: &SinkError) -> bool {
    let kind = |error: &SinkError| match error.class() {
        ErrorClass::Transient | ErrorClass::Resource => 1,
        ErrorClass::Permission | ErrorClass::Schema => 2,
        ErrorClass::Unknown => 3,
        _ => 4,
    };
    // Transient errors tell what each row waits for.
    kind(a) == kind(b) && kind(a) != 4 && (kind(a) != 1 || a.code() == b.code())
}

fn too_late(error: &SinkError) -> SinkError {
    let text =
        format!("a later row with the same key was written, so this one is not retried; it failed with: {error}");
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

    fn answer(row: u32, replies: &[Value]) -> Answer<'_> {
        Answer { row, is_script: false, is_delete: false, replies }
    }

    fn error(line: &str) -> Value {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap()
    }

    /// The outcomes of rows with these replies; the row's key is its index in `keys`.
    fn outcomes(plan: &RedisPlan, replies: &[Value], keys: &str) -> Result<[Vec<u32>; 3], ErrorClass> {
        let mut results = RowResults::default();
        for (row, reply) in (0..).zip(replies) {
            results.enter(plan, answer(row, std::slice::from_ref(reply)));
        }
        let overwrite_key = |row: u32| Some(vec![keys.as_bytes()[row as usize]]);
        let written = results.settle(plan, replies.len() as u32, overwrite_key).map_err(|error| error.class())?;
        let numbers = |rows: &[(u32, SinkError)]| rows.iter().map(|(row, _)| *row).collect::<Vec<_>>();
        Ok([written.ignored.clone(), numbers(&written.rejected), numbers(&written.unfinished)])
    }

    #[test]
    fn each_reply_is_the_outcome_of_its_row() {
        let set = plan(Command::set("k", "v"), Conflict::none());
        let nx = plan(Command::set("k", "v"), Conflict::ignore(["k"]));
        let (ok, wrong, oom) = (Value::Okay, error("WRONGTYPE x"), error("OOM x"));
        assert_eq!(outcomes(&set, &[ok.clone(), wrong.clone(), oom.clone()], "abc"), Ok([vec![], vec![1], vec![2]]));
        assert_eq!(
            outcomes(&set, &[Value::Nil, ok.clone()], "ab"),
            Ok([vec![], vec![], vec![]]),
            "nil is no news here"
        );
        assert_eq!(outcomes(&nx, &[Value::Nil, ok.clone()], "ab"), Ok([vec![0], vec![], vec![]]));
        assert_eq!(outcomes(&set, &[wrong.clone(), wrong], "ab"), Ok([vec![], vec![0, 1], vec![]]));
    }

    #[test]
    fn a_batch_that_was_refused_as_a_whole_is_an_error() {
        let set = plan(Command::set("k", "v"), Conflict::none());
        let check = |lines: &[&str], expected| {
            let replies: Vec<Value> = lines.iter().map(|line| error(line)).collect();
            assert_eq!(outcomes(&set, &replies, "abc"), expected, "{lines:?}");
        };
        check(&["LOADING x", "LOADING x"], Err(ErrorClass::Transient));
        check(&["OOM x", "OOM x"], Err(ErrorClass::Resource));
        // Each keeps its own error, and both are retried.
        check(&["LOADING x", "OOM x"], Ok([vec![], vec![], vec![0, 1]]));
        check(&["NOPERM x", "NOPERM x"], Err(ErrorClass::Permission));
        check(&["NOPERM x", "OOM x"], Ok([vec![], vec![0], vec![1]]));
        check(&["ERR syntax error", "OOM x"], Ok([vec![], vec![0], vec![1]]));
        check(&["ERR nobody knows", "OOM x"], Ok([vec![], vec![], vec![0, 1]]));
    }

    #[test]
    fn an_older_row_is_never_written_over_a_newer_one() {
        let oom = || error("OOM x");
        let check = |command: Command, conflict, expected| {
            // Rows 0 and 2 have one key, and only row 2 was written.
            assert_eq!(outcomes(&plan(command, conflict), &[oom(), oom(), Value::Int(1)], "aba"), Ok(expected));
        };
        check(Command::set("k", "v").into(), Conflict::none(), [vec![], vec![0], vec![1]]);
        check(Command::raw("APPEND").into(), Conflict::none(), [vec![], vec![0], vec![1]]);
        // These overwrite nothing.
        check(Command::set("k", "v").into(), Conflict::ignore(["k"]), [vec![], vec![], vec![0, 1]]);
        check(Command::lpush("k", "v").into(), Conflict::none(), [vec![], vec![], vec![0, 1]]);
        // Both are retried, in their order.
        let set = plan(Command::set("k", "v"), Conflict::none());
        assert_eq!(outcomes(&set, &[oom(), Value::Okay, oom()], "aba"), Ok([vec![], vec![], vec![0, 2]]));
    }

    #[test]
    fn the_commands_of_a_transaction_are_one_row() {
        let hash = plan(Command::hash(), Conflict::replace(["k"]));
        let check = |replies: [Value; IN_TRANSACTION], expected: Option<ErrorClass>| {
            let mut results = RowResults::default();
            assert!(results.enter(&hash, answer(0, &replies)).is_none());
            assert_eq!(results.failed.first().map(|(_, error)| error.class()), expected);
        };
        let queued = || Value::SimpleString("QUEUED".into());
        check([Value::Okay, queued(), queued(), Value::Array(vec![Value::Int(1), Value::Int(0)])], None);
        let wrong = Value::Array(vec![error("WRONGTYPE x"), error("WRONGTYPE x")]);
        check([Value::Okay, queued(), queued(), wrong], Some(ErrorClass::Row));
        check([Value::Okay, error("OOM x"), queued(), error("EXECABORT x")], Some(ErrorClass::Resource));
        // Nothing of it was executed, and the row is not at fault.
        let aborted = |reason| [Value::Okay, queued(), queued(), error(reason)];
        check(aborted("EXECABORT Transaction discarded because of previous errors."), Some(ErrorClass::Transient));
        check(aborted("EXECABORT Transaction discarded because of: OOM x"), Some(ErrorClass::Resource));
        check(aborted("EXECABORT Transaction discarded because of: NOPERM x"), Some(ErrorClass::Permission));
        check(aborted("NOPERM x"), Some(ErrorClass::Permission));
        // `HDEL` alone is not allowed, or both.
        let abort = || error("EXECABORT Transaction discarded because of previous errors.");
        check([Value::Okay, queued(), error("NOPERM x"), abort()], Some(ErrorClass::Row));
        check([Value::Okay, error("NOPERM x"), error("NOPERM x"), abort()], Some(ErrorClass::Permission));
        check([Value::Okay, queued(), error("OOM x"), abort()], Some(ErrorClass::Resource));
    }

    #[test]
    fn a_row_that_only_deletes_is_at_fault_if_the_user_may_not_delete() {
        let check = |command: Command, is_delete, text: &str, expected| {
            let mut results = RowResults::default();
            let replies = [error(text)];
            let plan = plan(command, Conflict::replace(["k"]));
            assert!(results.enter(&plan, Answer { is_delete, ..answer(0, &replies) }).is_none());
            assert_eq!(results.failed[0].1.class(), expected, "{text}");
        };
        let command = "NOPERM User u has no permissions to run the 'hdel' command";
        check(Command::hash().into(), true, command, ErrorClass::Row);
        check(Command::hash().into(), true, "NOPERM No permissions to access a key", ErrorClass::Permission);
        check(Command::hash().into(), false, command, ErrorClass::Permission);
    }

    #[test]
    fn without_a_transaction_the_commands_themselves_say_what_was_written() {
        let hash = plan(Command::hash(), Conflict::replace(["k"]));
        let check = |first: Value, second: Value, expected: Option<ErrorClass>| {
            let mut results = RowResults::default();
            let replies = [error("NOPERM x"), first, second, error("ERR EXEC without MULTI")];
            assert!(results.enter(&hash, answer(0, &replies)).is_none());
            assert_eq!(results.failed.first().map(|(_, error)| error.class()), expected);
        };
        check(Value::Int(1), Value::Int(0), None);
        check(error("WRONGTYPE x"), error("WRONGTYPE x"), Some(ErrorClass::Row));
        check(Value::Int(1), error("NOPERM x"), Some(ErrorClass::Unknown));
        // The rest of a transaction that could not be ended.
        let queued = || Value::SimpleString("QUEUED".into());
        check(queued(), queued(), Some(ErrorClass::Unknown));
        let mut results = RowResults::default();
        results.enter(&hash, answer(0, &[queued()]));
        assert_eq!(results.failed[0].1.class(), ErrorClass::Unknown);
    }

    #[test]
    fn a_redirected_row_does_not_follow_a_later_one_with_its_key() {
        let keys = |row: u32| Some(vec![b"aba"[row as usize]]);
        let undone = |command: Command, failed: &[(u32, ErrorClass)]| {
            let failed = failed.iter().map(|(row, class)| (*row, SinkError::new(*class, ""))).collect();
            let results = RowResults { failed, ignored: Vec::new() };
            let mut undone: Vec<u32> =
                results.undone(&[0, 1], &plan(command, Conflict::none()), 3, keys).into_iter().collect();
            undone.sort_unstable();
            undone
        };
        assert_eq!(undone(Command::set("k", "v").into(), &[]), [0]);
        assert_eq!(undone(Command::set("k", "v").into(), &[(2, ErrorClass::Row)]), [0_u32; 0]);
        assert_eq!(undone(Command::set("k", "v").into(), &[(2, ErrorClass::Unknown)]), [0], "nobody repeats it");
        assert_eq!(undone(Command::rpush("k", "v").into(), &[]), [0_u32; 0]);
    }

    #[test]
    fn redirections_are_followed_not_reported() {
        let set = plan(Command::set("k", "v"), Conflict::none());
        let mut results = RowResults::default();
        let moved = [error("MOVED 1 h:1")];
        assert_eq!(results.enter(&set, answer(0, &moved)).map(ServerError::code), Some("MOVED"));
        assert!(results.failed.is_empty());
    }
}
