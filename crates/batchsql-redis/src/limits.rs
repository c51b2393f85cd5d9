//! Owns the server's limits for one command, and the errors of rows beyond them.
//! Must not know connections or columns.
//!
//! A server answers a value above `proto-max-bulk-len` with an error and closes the connection; above
//! `client-query-buffer-limit` it only closes. Neither can be set below 1 MiB.

use batchsql_core::{ErrorClass, SinkError};
use redis::{Pipeline, ServerError, Value};

use crate::client::text;
use crate::encode::Encoded;
use crate::packed::Packed;

/// Smaller commands are below every possible limit.
const ALWAYS_TAKEN: usize = 1 << 20;

/// The limits that a server reports; `None` if it does not report one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ServerLimits {
    bulk: Option<usize>,
    query_buffer: Option<usize>,
    /// The server has read a command of this size on this connection.
    taken: CommandSize,
}

/// Size of the commands of a row, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CommandSize {
    pub(crate) total: usize,
    pub(crate) largest: usize,
}

/// How a command is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SendWay {
    Together,
    /// After the replies to all earlier commands: it may end the connection.
    Alone,
    /// It was above a limit when the limits were last queried.
    AfterQuestion,
    /// The limits are not known: after a command of this size that does nothing. If the server closes the connection at it,
    /// nothing of the row was sent.
    AfterTrial,
}

/// What a server has made of a command of a size that does nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    Taken,
    /// Its error says that the command is too large.
    Refused,
    /// It has closed the connection.
    Closed,
    /// It has closed two connections at this size before, and answers on another one.
    ClosedEach,
    /// Nothing was tried: it does not answer, so a connection may have been closed for another reason than the size.
    Unanswered,
}

/// How many connections the server has closed at a command of a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    Never,
    Once,
    /// The second one had answered just before.
    Twice,
}

impl CommandSize {
    pub(crate) fn of(encoded: &Encoded) -> Self {
        let second = encoded.second.as_ref();
        Self {
            total: encoded.command.total() + second.map_or(0, Packed::total),
            largest: encoded.command.largest().max(second.map_or(0, Packed::largest)),
        }
    }

    /// A command with arguments of this size. It does nothing, because it has too many of them, and its reply is short.
    pub(crate) fn trial(self) -> Vec<u8> {
        let mut command = Packed::default();
        command.write_arg(b"ECHO");
        let filler = vec![b'x'; self.largest];
        command.write_arg(&filler);
        let mut left = self.total - self.largest;
        loop {
            let part = left.min(self.largest);
            command.write_arg(&filler[..part]);
            left -= part;
            if left == 0 {
                break;
            }
        }
        let mut bytes = Vec::with_capacity(self.total + 64);
        command.append_to(&mut bytes);
        bytes
    }
}

impl ServerLimits {
    /// The number of queries that [`ask`](Self::ask) adds.
    pub(crate) const QUESTIONS: usize = 2;

    /// Adds the queries whose replies [`new`](Self::new) reads.
    pub(crate) fn ask(questions: &mut Pipeline) {
        for name in ["proto-max-bulk-len", "client-query-buffer-limit"] {
            questions.cmd("CONFIG").arg("GET").arg(name);
        }
    }

    /// If `CONFIG` is forbidden or unknown, the limits are not known.
    pub(crate) fn new(replies: &[Value]) -> Self {
        let limit = |reply: Option<&Value>| match reply? {
            Value::Array(pair) => text(pair.get(1)?).parse().ok(),
            Value::Map(pairs) => text(&pairs.first()?.1).parse().ok(),
            _ => None,
        };
        Self { bulk: limit(replies.first()), query_buffer: limit(replies.get(1)), taken: CommandSize::default() }
    }

    /// Records that the server has read a command of this size.
    pub(crate) fn note_taken(&mut self, size: CommandSize) {
        let CommandSize { total, largest } = &mut self.taken;
        (*total, *largest) = (size.total.max(*total), size.largest.max(*largest));
    }

    pub(crate) fn way(&self, size: CommandSize) -> SendWay {
        if size.total < ALWAYS_TAKEN {
            SendWay::Together
        } else if self.refusal(size.largest).is_some() {
            SendWay::AfterQuestion
        } else if self.query_buffer.is_none() && (size.total > self.taken.total || size.largest > self.taken.largest) {
            SendWay::AfterTrial
        } else if self.bulk.is_none() || self.query_buffer.is_none_or(|limit| size.total >= limit) {
            SendWay::Alone
        } else {
            SendWay::Together
        }
    }

    /// The error of a row whose largest argument has this many bytes, if the server would reject it.
    pub(crate) fn refusal(&self, largest: usize) -> Option<SinkError> {
        let limits = [(self.bulk, "proto-max-bulk-len"), (self.query_buffer, "client-query-buffer-limit")];
        limits.into_iter().find_map(|(limit, name)| {
            let limit = limit.filter(|limit| largest > *limit)?;
            Some(too_large(&format!(
                "a value of the row has {largest} bytes, more than the {limit} of {name} at the server; raise it, or \
                 split the value"
            )))
        })
    }
}

/// Whether this is the final error of a server for a command that is too large: it has executed nothing after
/// it.
pub(crate) fn is_end(error: &ServerError) -> bool {
    let texts = ["Protocol error: invalid bulk length", "Protocol error: invalid multibulk length"];
    error.code() == "ERR" && error.details().is_some_and(|details| texts.contains(&details))
}

/// The error of the row that got this final error.
pub(crate) fn refused(largest: usize) -> SinkError {
    too_large(&format!(
        "a value of the row has {largest} bytes, more than proto-max-bulk-len at the server; raise it, or split the value"
    ))
}

/// The error of a row at whose size the server closes each connection.
pub(crate) fn closes(size: CommandSize) -> SinkError {
    too_large(&format!(
        "a value of the row has {} bytes, and the server closes the connection at a command of {} bytes, as many as those of the row; raise \
         client-query-buffer-limit or the limit of the proxy, or split the value",
        size.largest, size.total
    ))
}

fn too_large(text: &str) -> SinkError {
    SinkError::with_code(ErrorClass::Row, "ERR", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_commands_wait_for_what_is_known() {
        let check = |bulk, query_buffer, total, largest, expected| {
            let limits = ServerLimits { bulk, query_buffer, taken: CommandSize { total: 5 * MB, largest: 4 * MB } };
            assert_eq!(limits.way(CommandSize { total, largest }), expected, "{limits:?} {total} {largest}");
        };
        const MB: usize = 1 << 20;
        check(None, None, MB - 1, MB - 1, SendWay::Together);
        check(None, None, MB, MB, SendWay::Alone);
        check(None, None, 5 * MB, 4 * MB + 1, SendWay::AfterTrial);
        check(None, None, 5 * MB + 1, MB, SendWay::AfterTrial);
        check(None, Some(9 * MB), 6 * MB, 6 * MB, SendWay::Alone);
        check(Some(8 * MB), Some(9 * MB), 7 * MB, 7 * MB, SendWay::Together);
        check(Some(8 * MB), Some(9 * MB), 9 * MB, 8 * MB, SendWay::Alone);
        check(Some(8 * MB), Some(9 * MB), 9 * MB, 8 * MB + 1, SendWay::AfterQuestion);
        check(Some(8 * MB), Some(2 * MB), 3 * MB, 2 * MB + 1, SendWay::AfterQuestion);
    }

    #[test]
    fn a_trial_has_the_size_of_the_row() {
        for (total, largest) in [(10, 10), (25, 10), (30, 10)] {
            let sent = CommandSize { total, largest }.trial();
            let lengths: Vec<usize> = std::str::from_utf8(&sent)
                .unwrap()
                .lines()
                .filter_map(|line| line.strip_prefix('$')?.parse().ok())
                .collect();
            assert_eq!(lengths[1..].iter().sum::<usize>(), total);
            assert_eq!((lengths[1..].iter().max(), lengths.len() > 2), (Some(&largest), true));
        }
    }

    #[test]
    fn limits_are_read_from_both_versions_of_the_protocol() {
        let text = |text: &str| Value::BulkString(text.into());
        let array = Value::Array(vec![text("proto-max-bulk-len"), text("536870912")]);
        let map = Value::Map(vec![(text("client-query-buffer-limit"), text("1073741824"))]);
        let limits = ServerLimits::new(&[array, map]);
        let taken = CommandSize::default();
        assert_eq!(limits, ServerLimits { bulk: Some(536_870_912), query_buffer: Some(1_073_741_824), taken });
        assert_eq!(ServerLimits::new(&[Value::Array(Vec::new()), Value::Nil]), ServerLimits::default());
    }
}
