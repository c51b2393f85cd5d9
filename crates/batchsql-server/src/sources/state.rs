//! Owns what a source of a stream does, as those see it who ask whether the service is ready.
//! Must not know NATS.

use std::fmt;

use batchsql::StopReason;

/// One source, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has not started yet: NATS does not answer.
    Starting,
    /// It has started. With the partitions that this worker has, and the messages that wait in them.
    Reading {
        partitions: usize,
        messages: u64,
    },
    /// NATS or the database does not answer. It tries again.
    Trouble,
    /// So many partitions cannot be written now. They try again.
    Waiting(usize),
    /// So many partitions do not go on without a person, for this kind of reason.
    Stopped(usize, StopReason),
    /// The same, and they are all that this worker has.
    AllStopped(usize, StopReason),
    Ended,
}

impl State {
    /// Whether rows are written, or would be if there were some.
    pub(crate) fn is_ready(self) -> bool {
        matches!(self, Self::Reading { .. })
    }
}

/// Everyone may ask: it has no names and only kinds of reasons; the reasons are in the log.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("waits for NATS"),
            Self::Reading { partitions, messages } => write!(f, "{partitions} partitions, {messages} messages wait"),
            Self::Trouble => f.write_str("NATS or the database does not answer; see the log"),
            Self::Waiting(partitions) => {
                write!(f, "{partitions} partitions cannot be written now, and are tried again; see the log")
            }
            Self::Stopped(partitions, kind) => {
                write!(f, "{partitions} partitions have stopped ({}); see the log", kind.name())
            }
            Self::AllStopped(partitions, kind) => {
                write!(f, "all of its {partitions} partitions have stopped ({}); see the log", kind.name())
            }
            Self::Ended => f.write_str("has ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_has_the_kind_of_its_reason() {
        for kind in StopReason::ALL {
            for state in [State::Stopped(2, kind), State::AllStopped(2, kind)] {
                let text = state.to_string();
                assert!(!kind.name().is_empty() && text.contains(&format!("({}); see the log", kind.name())), "{text}");
            }
        }
    }
}
