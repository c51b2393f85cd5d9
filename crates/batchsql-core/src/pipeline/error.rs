//! Owns why the pipeline did not accept a row, or did not finish a call.
//! Must not know how rows are written.

use std::fmt;

use crate::outcome::letter::DeadLetter;
use crate::outcome::row_outcomes::RowOutcomes;
use crate::row::error::RowError;

/// Why a row was not accepted. Nothing of it was kept: the caller still has the row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct SubmitError(SubmitErrorKind);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum SubmitErrorKind {
    #[error("the pipeline is closed, by close() or with its runtime; submit the row to a new pipeline")]
    Closed,
    #[error("the buffer is full; wait for capacity (WhenFull::Wait), or raise buffer_size or buffer_bytes")]
    Full,
    #[error(
        "{rows} rows of {bytes} bytes can never be in the buffer together; submit fewer at once, or raise buffer_size or \
         buffer_bytes"
    )]
    TooMany { rows: usize, bytes: usize },
    #[error(transparent)]
    Row(RowError),
}

impl SubmitError {
    pub(crate) fn closed() -> Self {
        Self(SubmitErrorKind::Closed)
    }

    pub(crate) fn full() -> Self {
        Self(SubmitErrorKind::Full)
    }

    pub(crate) fn too_many(rows: usize, bytes: usize) -> Self {
        Self(SubmitErrorKind::TooMany { rows, bytes })
    }

    /// The pipeline was closed.
    pub fn is_closed(&self) -> bool {
        self.0 == SubmitErrorKind::Closed
    }

    /// There was no capacity, and the call does not wait or its time limit passed.
    pub fn is_full(&self) -> bool {
        self.0 == SubmitErrorKind::Full
    }

    /// The rows of one [`try_submit_all`](crate::BatchSql::try_submit_all) need more than the whole buffer: trying again
    /// does not help.
    pub fn is_too_many(&self) -> bool {
        matches!(self.0, SubmitErrorKind::TooMany { .. })
    }

    /// The row itself is at fault.
    pub fn row_error(&self) -> Option<&RowError> {
        match &self.0 {
            SubmitErrorKind::Row(error) => Some(error),
            _ => None,
        }
    }

    /// The name used in the `reason` label of the refusal metric.
    pub(crate) fn reason(&self) -> &'static str {
        match &self.0 {
            SubmitErrorKind::Closed => "closed",
            SubmitErrorKind::Full => "full",
            SubmitErrorKind::Row(_) | SubmitErrorKind::TooMany { .. } => "invalid",
        }
    }
}

impl From<RowError> for SubmitError {
    fn from(error: RowError) -> Self {
        Self(SubmitErrorKind::Row(error))
    }
}

/// `submit_all` stopped before the last row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("after {accepted} accepted rows: {source}")]
pub struct SubmitAllError {
    pub(crate) accepted: usize,
    pub(crate) source: SubmitError,
}

impl SubmitAllError {
    /// How many rows from the start were accepted. The next row was not accepted.
    pub fn accepted(&self) -> usize {
        self.accepted
    }

    /// Why the next row was not accepted.
    pub fn submit_error(&self) -> &SubmitError {
        &self.source
    }
}

/// `submit_all_tracked` stopped before the last row. The accepted rows have their outcomes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("after {} accepted rows: {source}", self.accepted())]
pub struct SubmitAllTrackedError {
    pub(crate) outcomes: RowOutcomes,
    pub(crate) source: SubmitError,
}

impl SubmitAllTrackedError {
    /// How many rows from the start were accepted. The next row was not accepted.
    pub fn accepted(&self) -> usize {
        usize::try_from(self.outcomes.counts.total()).unwrap_or(usize::MAX)
    }

    /// What became of the rows that were accepted.
    pub fn outcomes(&self) -> &RowOutcomes {
        &self.outcomes
    }

    /// Why the next row was not accepted.
    pub fn submit_error(&self) -> &SubmitError {
        &self.source
    }
}

/// `try_submit_all` accepted no row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TrySubmitAllError {
    pub(crate) row: Option<usize>,
    pub(crate) source: SubmitError,
}

impl TrySubmitAllError {
    /// The index of the row that is at fault, from 0; `None` if no single row is.
    pub fn row(&self) -> Option<usize> {
        self.row
    }

    /// Why no row was accepted.
    pub fn submit_error(&self) -> &SubmitError {
        &self.source
    }
}

impl fmt::Display for TrySubmitAllError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Some(row) => write!(f, "none of the rows was accepted, because of row {row}: {}", self.source),
            None => write!(f, "none of the rows was accepted: {}", self.source),
        }
    }
}

/// A row was not accepted in place of a failed one.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct ResubmitError {
    pub(crate) letter: Box<DeadLetter>,
    pub(crate) source: SubmitError,
}

impl ResubmitError {
    /// Why the row was not accepted.
    pub fn submit_error(&self) -> &SubmitError {
        &self.source
    }

    /// The letter, to be kept or tried again.
    pub fn into_letter(self) -> DeadLetter {
        *self.letter
    }
}

/// The dispatcher ended because of a defect before every row had an outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline ended before everything was written; the receipts show which rows")]
pub struct FlushError(pub(crate) ());
