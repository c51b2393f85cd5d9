//! Owns the events that the feeds of a source report to the observers of their pipeline.
//! Must not know observers, metric names, or how a source is read.

use std::collections::BTreeMap;
use std::time::SystemTime;

/// Why a partition of a source does not go on without a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StopReason {
    /// Rows are missing in the source.
    Gap,
    /// The source was made anew, was restored from a backup, or has lost its end.
    OtherSource,
    /// Another process has claimed the partition.
    Fenced,
    /// The position in the database is gone, or was changed from outside.
    Position,
    /// The program has no schema for the rows, or one that does not fit or that this guarantee does not allow.
    Schema,
    /// The rows cannot be read: they are damaged, or a newer version wrote them.
    Unreadable,
    /// A row cannot be submitted.
    Row,
    /// Settings of the program or of the source do not fit.
    Settings,
    /// The task of the partition has panicked.
    Defect,
}

impl StopReason {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 9] = [
        Self::Gap,
        Self::OtherSource,
        Self::Fenced,
        Self::Position,
        Self::Schema,
        Self::Unreadable,
        Self::Row,
        Self::Settings,
        Self::Defect,
    ];

    /// The name used in metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::OtherSource => "other_source",
            Self::Fenced => "fenced",
            Self::Position => "position",
            Self::Schema => "schema",
            Self::Unreadable => "unreadable",
            Self::Row => "row",
            Self::Settings => "settings",
            Self::Defect => "defect",
        }
    }
}

/// The state of the feeds of a source at one moment, as one process sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedGauges {
    /// Whether the source has answered the last request; `None` before the first answer.
    pub source_up: Option<bool>,
    /// Messages of the stream that are of no partition, so that no process reads them. Every process reports the same. `None`: the
    /// source has none of that kind.
    pub stray_messages: Option<u64>,
    /// The tables that the source has rows of, by name, each once.
    pub tables: Vec<FeedTable>,
}

/// One table of [`FeedGauges`].
///
/// Where partitions are shared out by leases (exactly once), the messages are those of the partitions that this process holds, so
/// that the sum over all processes counts each once. Where all processes read all partitions (at least once), they are those of
/// all partitions, and every process reports the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedTable {
    /// `namespace.table`.
    pub table: String,
    /// Messages of the source that are not settled: the distance between position and end.
    pub unsettled_messages: u64,
    /// Of these, messages that were not delivered yet.
    pub pending_messages: u64,
    /// When the oldest message that is not settled was stored; `None` if there is none, or if it is not known.
    pub oldest_unsettled: Option<SystemTime>,
    /// Partitions that this process is to feed.
    pub wanted_partitions: u64,
    /// Partitions that it has claimed, or that it reads with others.
    pub held_partitions: u64,
    /// Partitions that no process has. Every process reports them.
    pub unheld_partitions: u64,
    /// Partitions that cannot be written now, and try again by themselves.
    pub waiting_partitions: u64,
    /// Partitions that do not go on without a person, by reason. A reason that is not there has none.
    pub stopped_partitions: BTreeMap<StopReason, u64>,
}

/// What the feeds of a table have done since the last report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedProgress {
    /// `namespace.table`.
    pub table: String,
    /// Rows that were read.
    pub read_rows: u64,
    /// Rows that have ended as written, ignored or superseded, and were settled.
    pub written_rows: u64,
    /// Rows that were written again because their outcome was not known, with later rows of their keys.
    pub written_again: u64,
    /// Rows that were missing in the source, and were accepted as lost.
    pub missing_rows: u64,
    /// Rejected rows that were added to the dead-letter file.
    pub dead_letters: u64,
    /// Partitions that were taken over: the lease of another process had ended.
    pub takeovers: u64,
    /// Partitions that another process has claimed while this one had them.
    pub fences: u64,
    /// Messages that were delivered again. Those that this process had read are dropped; those of another process, which has ended or
    /// has not acknowledged them in time, are written.
    pub redelivered_messages: u64,
    /// Messages of another format that were written to their file.
    pub foreign_messages: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = StopReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), StopReason::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }
}
