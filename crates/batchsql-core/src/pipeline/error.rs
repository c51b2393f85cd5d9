//! Owns why the pipeline did not accept a row, or did not finish a call.
//! Must not know how rows are written.

use crate::outcome::letter::DeadLetter;
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

    /// The pipeline was closed.
    pub fn is_closed(&self) -> bool {
        self.0 == SubmitErrorKind::Closed
    }

    /// There was no capacity, and the call does not wait or its time limit passed.
    pub fn is_full(&self) -> bool {
        self.0 == SubmitErrorKind::Full
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
            SubmitErrorKind::Row(_) => "invalid",
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
