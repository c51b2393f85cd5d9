//! Owns the lines about items and messages that are no rows: one of each kind, then how many more there were.
//! Must not know how messages are read.

use batchsql_core::{Counted, WarningCounts};

/// The most characters of a reason by which it is told from others.
const LONGEST_REASON: usize = 200;

/// What is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bad {
    Items,
    Messages,
}

/// With its table and the reason.
type Kind = (Bad, String, String);

/// Says what was set aside, without a line for each of 40,000 messages that have one reason.
#[derive(Debug)]
pub(crate) struct BadLog(WarningCounts<Kind>);

/// Where the first one is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) sequence: u64,
    /// The file that has it.
    pub(crate) path: &'a str,
}

impl BadLog {
    pub(crate) fn new() -> Self {
        let others = (Bad::Items, "others".to_owned(), "other reasons".to_owned());
        Self(WarningCounts::new(others))
    }

    /// So many items of a message are no rows, from `line` on, the first one for this reason.
    pub(crate) fn items(&self, place: Place<'_>, (line, count): (u64, u64), reason: &str) {
        let Place { table, subject, sequence, path } = place;
        match self.0.add(kind(Bad::Items, table, reason), count) {
            Counted::First => tracing::warn!(
                subject,
                sequence,
                line,
                count,
                reason,
                path,
                "items of a message are no rows, the first one for this reason; they are kept in a file; more of this kind are counted"
            ),
            Counted::Later => {}
            Counted::Due(kind, count) => say(&kind, count, path),
        }
    }

    /// A message is not written.
    pub(crate) fn message(&self, place: Place<'_>, reason: &str) {
        let Place { table, subject, sequence, path } = place;
        match self.0.add(kind(Bad::Messages, table, reason), 1) {
            Counted::First => tracing::error!(
                subject,
                sequence,
                reason,
                path,
                "a message is not of this format; it is not written, and kept in a file; more of this kind are counted"
            ),
            Counted::Later => {}
            Counted::Due(kind, count) => say(&kind, count, path),
        }
    }

    /// Says what no line has told.
    pub(crate) fn end(&self, path: &str) {
        self.0.take().iter().for_each(|(kind, count)| say(kind, *count, path));
    }
}

fn kind(bad: Bad, table: &str, reason: &str) -> Kind {
    (bad, table.to_owned(), reason.chars().take(LONGEST_REASON).collect())
}

fn say((bad, table, reason): &Kind, count: u64, path: &str) {
    match bad {
        Bad::Items => tracing::warn!(table, count, reason, path, "more items are no rows; they are kept in the file"),
        Bad::Messages => {
            tracing::error!(
                table,
                count,
                reason,
                path,
                "more messages are not of this format; they are not written, and kept in the file"
            );
        }
    }
}
