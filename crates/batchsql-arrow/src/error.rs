//! Owns why batches are not rows of a table, or were not accepted.
//! Must not know how values are converted.

use batchsql_core::{RefusedRow, RowError, SubmitAllError, SubmitAllTrackedError};

/// The columns of a batch do not fit a table. No row of the batch was checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table:?}: {problem}")]
pub struct MappingError {
    pub(crate) table: String,
    pub(crate) column: Option<String>,
    pub(crate) problem: String,
}

impl MappingError {
    /// The field or column at fault, if there is one.
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }
}

/// A batch was not accepted, or only in part.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitBatchError {
    /// The batch has other columns than the mapping. No row was accepted.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The database cannot take rows with the columns of the mapping. No row was checked or accepted.
    #[error("no row of the batch was accepted: {0}")]
    Columns(RowError),
    /// A row does not fit. No row was accepted.
    #[error("no row of the batch was accepted: {0}")]
    Refused(#[from] RefusedRow),
    /// The pipeline did not accept further rows.
    #[error(transparent)]
    Submit(#[from] SubmitAllError),
    /// The pipeline did not accept further rows of a tracked call. The error has the outcomes of those that it did.
    #[error(transparent)]
    Tracked(#[from] SubmitAllTrackedError),
}

impl SubmitBatchError {
    /// How many rows of the batch were accepted, from the first one on.
    pub fn accepted(&self) -> usize {
        match self {
            Self::Mapping(_) | Self::Columns(_) | Self::Refused(_) => 0,
            Self::Submit(error) => error.accepted(),
            Self::Tracked(error) => error.accepted(),
        }
    }
}
