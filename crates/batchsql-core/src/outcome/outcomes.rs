//! Owns the outcomes of rows, their counts, and the rows that were not written.
//! Must not know how outcomes are decided.

use std::fmt;
use std::sync::Arc;

use crate::error::{ErrorClass, SinkError};
use crate::model::table_name::TableName;
use crate::row::dynamic::DynRow;
use crate::row::traits::Row;

/// The outcome of one accepted row. Every accepted row ends in exactly one of these.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// Committed to the database. A later row with the same key may have overwritten it since.
    Written,
    /// The row changed nothing, because of its rule or its table:
    ///
    /// - [`Conflict::ignore`](crate::Conflict::ignore): its key is in the table. After a lost reply the stored row may be
    ///   this one, written by the attempt whose reply was lost.
    /// - [`Conflict::only_if_newer`](crate::Conflict::only_if_newer): the stored version is not older. After a lost reply
    ///   such a row is [`Written`](Self::Written) where the database can compare it, see
    ///   [`Sink::find_written`](crate::Sink::find_written).
    /// - [`Conflict::update_only`](crate::Conflict::update_only) and [`Conflict::delete`](crate::Conflict::delete): no row of
    ///   its key was found. After a lost reply the attempt whose reply was lost may have deleted it.
    /// - Any rule: a trigger or a rule of the table dropped the row.
    Ignored,
    /// A later row with the same key, in the same batch, replaced it and was committed, see
    /// [`Coalesce`](crate::Coalesce).
    Superseded,
    /// The database refused the row or its table.
    Rejected(FailedRow),
    /// It was retried for `retry_for` without success, or it was older than `max_age`.
    Expired(FailedRow),
    /// It was given up before it was sent: the deadline of `close` passed, its capacity was needed
    /// ([`WhenFull::DropOldest`](crate::WhenFull::DropOldest)), the sink panicked before the write, or the runtime
    /// ended. In durable pipelines and feeds also: its table was parked when the pipeline closed; the source has the row
    /// still.
    Purged(FailedRow),
    /// It was sent, or a later row that would have superseded it was sent, and it is not known whether that was
    /// committed.
    Unknown(FailedRow),
}

impl Outcome {
    /// The name of the outcome.
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Self::Written => OutcomeKind::Written,
            Self::Ignored => OutcomeKind::Ignored,
            Self::Superseded => OutcomeKind::Superseded,
            Self::Rejected(_) => OutcomeKind::Rejected,
            Self::Expired(_) => OutcomeKind::Expired,
            Self::Purged(_) => OutcomeKind::Purged,
            Self::Unknown(_) => OutcomeKind::Unknown,
        }
    }

    /// True when the row is in the database.
    pub fn is_written(&self) -> bool {
        matches!(self, Self::Written)
    }

    /// The row and the reason, for every outcome that may need the caller's action.
    pub fn failure(&self) -> Option<&FailedRow> {
        match self {
            Self::Written | Self::Ignored | Self::Superseded => None,
            Self::Rejected(row) | Self::Expired(row) | Self::Purged(row) | Self::Unknown(row) => Some(row),
        }
    }

    pub(crate) fn failed(kind: FailureKind, row: FailedRow) -> Self {
        match kind {
            FailureKind::Rejected => Self::Rejected(row),
            FailureKind::Expired => Self::Expired(row),
            FailureKind::Purged => Self::Purged(row),
            FailureKind::Unknown => Self::Unknown(row),
        }
    }
}

/// The outcomes that hand the row back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Rejected,
    Expired,
    Purged,
    Unknown,
}

impl FailureKind {
    pub(crate) fn outcome(self) -> OutcomeKind {
        match self {
            Self::Rejected => OutcomeKind::Rejected,
            Self::Expired => OutcomeKind::Expired,
            Self::Purged => OutcomeKind::Purged,
            Self::Unknown => OutcomeKind::Unknown,
        }
    }
}

/// One line for logs: the outcome and, where there is one, table and reason; never a value.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failure() {
            None => write!(f, "{}", self.kind()),
            Some(failed) => write!(f, "{} {failed}", self.kind()),
        }
    }
}

/// One line for logs: table, attempts and reason; never a value.
impl fmt::Display for FailedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempts() {
            0 => write!(f, "row of {}, never tried", self.table())?,
            1 => write!(f, "row of {}, tried once", self.table())?,
            attempts => write!(f, "row of {}, tried {attempts} times", self.table())?,
        }
        self.error().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

/// The name of an [`Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "described at the variants of Outcome")]
pub enum OutcomeKind {
    Written,
    Ignored,
    Superseded,
    Rejected,
    Expired,
    Purged,
    Unknown,
}

impl OutcomeKind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 7] =
        [Self::Written, Self::Ignored, Self::Superseded, Self::Rejected, Self::Expired, Self::Purged, Self::Unknown];

    /// The name used in metric labels and reports, for example `written`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Ignored => "ignored",
            Self::Superseded => "superseded",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Purged => "purged",
            Self::Unknown => "unknown",
        }
    }
}

/// The name, for example `written`.
impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Rows per outcome.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct OutcomeCounts([u64; 7]);

/// The outcomes that occurred, by name.
impl fmt::Debug for OutcomeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let occurred = OutcomeKind::ALL.into_iter().filter(|kind| self.get(*kind) > 0);
        f.debug_map().entries(occurred.map(|kind| (kind, self.get(kind)))).finish()
    }
}

impl OutcomeCounts {
    /// Rows that ended in `kind`.
    pub fn get(&self, kind: OutcomeKind) -> u64 {
        self.0[kind as usize]
    }

    /// Rows over all outcomes.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Rows that are not in the database although they should be: rejected, expired, purged and
    /// unknown.
    pub fn failed(&self) -> u64 {
        [OutcomeKind::Rejected, OutcomeKind::Expired, OutcomeKind::Purged, OutcomeKind::Unknown]
            .into_iter()
            .map(|kind| self.get(kind))
            .sum()
    }

    /// Adds the rows of others.
    pub(crate) fn merge(&mut self, others: &Self) {
        self.0.iter_mut().zip(others.0).for_each(|(rows, more)| *rows += more);
    }

    /// Adds rows.
    pub fn add(&mut self, kind: OutcomeKind, rows: u64) {
        self.0[kind as usize] += rows;
    }
}

/// A row that was not written, with the reason. Cheap to clone.
#[derive(Clone)]
pub struct FailedRow(Arc<FailedRowInner>);

struct FailedRowInner {
    row: DynRow,
    attempts: u32,
    error: Option<SinkError>,
}

impl FailedRow {
    pub(crate) fn new(row: DynRow, attempts: u32, error: Option<SinkError>) -> Self {
        Self(Arc::new(FailedRowInner { row, attempts, error }))
    }

    /// The row, to be corrected and submitted again.
    pub fn row(&self) -> &DynRow {
        &self.0.row
    }

    /// The table it was for.
    pub fn table(&self) -> &TableName {
        self.0.row.schema().table()
    }

    /// How many writes contained it, over retries and the search for bad rows, including those in which the driver
    /// refused it before it was sent; 0 if a newer row with its key was sent instead, or if no write was tried.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The last error, when there was one.
    pub fn error(&self) -> Option<&SinkError> {
        self.0.error.as_ref()
    }

    /// The class of the last error, when there was one. For a row that was refused alone it may be `Schema` or
    /// `Permission`: a trigger can raise such an error.
    pub fn class(&self) -> Option<ErrorClass> {
        self.error().map(SinkError::class)
    }

    /// The server's code, when there is one.
    pub fn code(&self) -> Option<&str> {
        self.error().and_then(SinkError::code)
    }
}

/// Shows table and reason, never a value.
impl fmt::Debug for FailedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailedRow")
            .field("table", self.table())
            .field("attempts", &self.attempts())
            .field("error", &self.error())
            .finish_non_exhaustive()
    }
}
