//! Owns the errors of the durable intake.
//! Must not know when they occur.

use std::sync::Arc;

use batchsql_core::{RowError, StartError};
use batchsql_feed::StoppedPartition;
use batchsql_log::{LogError, LogErrorKind};

/// The durable intake did not start. Nothing in the folder was lost.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct DurableStartError(StartKind);

#[derive(Debug, Clone, thiserror::Error)]
enum StartKind {
    #[error(transparent)]
    Pipeline(#[from] StartError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Refused(String),
    #[error("{doing}: {source}")]
    Io { doing: String, source: Arc<std::io::Error> },
}

impl DurableStartError {
    pub(crate) fn refused(problem: impl Into<String>) -> Self {
        Self(StartKind::Refused(problem.into()))
    }

    pub(crate) fn io(doing: String, source: std::io::Error) -> Self {
        Self(StartKind::Io { doing, source: Arc::new(source) })
    }

    /// Another process, or another handle of this process, uses the folder.
    pub fn is_locked(&self) -> bool {
        self.log_error().is_some_and(LogError::is_locked)
    }

    /// The settings contradict each other, or what is in the folder: another start will not help.
    pub fn is_invalid_settings(&self) -> bool {
        match &self.0 {
            StartKind::Pipeline(_) | StartKind::Refused(_) => true,
            StartKind::Log(error) => error.kind() == LogErrorKind::Invalid,
            StartKind::Io { .. } => false,
        }
    }

    /// The error of the log, if it could not be opened.
    pub fn log_error(&self) -> Option<&LogError> {
        match &self.0 {
            StartKind::Log(error) => Some(error),
            _ => None,
        }
    }
}

impl From<StartError> for DurableStartError {
    fn from(error: StartError) -> Self {
        Self(error.into())
    }
}

impl From<LogError> for DurableStartError {
    fn from(error: LogError) -> Self {
        Self(error.into())
    }
}

/// A row was not accepted, or it is not known whether it was ([`is_undetermined`](Self::is_undetermined)).
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct DurableSubmitError(SubmitKind);

#[derive(Debug, Clone, thiserror::Error)]
enum SubmitKind {
    #[error(transparent)]
    Row(RowError),
    #[error("{0}")]
    Refused(String),
    #[error("the durable intake is closed; submit the row to a new one")]
    Closed,
    #[error("too many rows wait for the log; try again, or submit from fewer tasks")]
    Busy,
    #[error(
        "{rows} rows with {bytes} bytes are more than can be stored together; submit them in parts, or raise segment_bytes"
    )]
    TooMany { rows: usize, bytes: usize },
    #[error("the key of this request was used for other content; use another key")]
    OtherContent,
    #[error("another call with the key of this request has not ended; try again")]
    InUse,
    #[error("the runtime of the durable intake ended; it is not known whether the row is stored")]
    Lost,
    #[error(transparent)]
    Log(LogError),
}

impl DurableSubmitError {
    pub(crate) fn lost() -> Self {
        Self(SubmitKind::Lost)
    }

    pub(crate) fn refused(problem: String) -> Self {
        Self(SubmitKind::Refused(problem))
    }

    pub(crate) fn closed() -> Self {
        Self(SubmitKind::Closed)
    }

    pub(crate) fn busy() -> Self {
        Self(SubmitKind::Busy)
    }

    pub(crate) fn too_many(rows: usize, bytes: usize) -> Self {
        Self(SubmitKind::TooMany { rows, bytes })
    }

    pub(crate) fn other_content() -> Self {
        Self(SubmitKind::OtherContent)
    }

    pub(crate) fn in_use() -> Self {
        Self(SubmitKind::InUse)
    }

    /// The rows never fit into the log together. No row was stored.
    pub fn is_too_many(&self) -> bool {
        matches!(self.0, SubmitKind::TooMany { .. })
    }

    /// The key was used for a request with other content. No row was stored.
    pub fn is_other_content(&self) -> bool {
        matches!(self.0, SubmitKind::OtherContent)
    }

    /// Another call with the key is storing its rows. No row was stored by this one.
    pub fn is_in_use(&self) -> bool {
        matches!(self.0, SubmitKind::InUse)
    }

    /// The row itself is at fault.
    pub fn row_error(&self) -> Option<&RowError> {
        match &self.0 {
            SubmitKind::Row(error) => Some(error),
            _ => None,
        }
    }

    /// There is no space in the log, or too many rows wait for it, and the call does not wait. The row was not stored.
    pub fn is_full(&self) -> bool {
        match &self.0 {
            SubmitKind::Busy => true,
            SubmitKind::Log(error) => error.is_full(),
            _ => false,
        }
    }

    /// The error of the log, if its disk or its budget has no space, in contrast to its queue, which is full for a moment.
    pub(crate) fn no_space(&self) -> Option<&LogError> {
        match &self.0 {
            SubmitKind::Log(error) if error.is_of_disk() => Some(error),
            _ => None,
        }
    }

    /// The intake was closed. The row was not stored.
    pub fn is_closed(&self) -> bool {
        matches!(self.0, SubmitKind::Closed)
    }

    /// The disk failed after the row was handed to the log: it may be stored or not. If it is submitted again, it may be
    /// written twice.
    pub fn is_undetermined(&self) -> bool {
        match &self.0 {
            SubmitKind::Lost => true,
            SubmitKind::Log(error) => error.is_undetermined(),
            _ => false,
        }
    }
}

impl From<RowError> for DurableSubmitError {
    fn from(error: RowError) -> Self {
        Self(SubmitKind::Row(error))
    }
}

impl From<LogError> for DurableSubmitError {
    fn from(error: LogError) -> Self {
        let is_closed = error.kind() == LogErrorKind::Closed;
        Self(if is_closed { SubmitKind::Closed } else { SubmitKind::Log(error) })
    }
}

/// `submit_all` stopped before the last row.
#[derive(Debug, Clone, thiserror::Error)]
#[error("after {accepted} accepted rows: {source}")]
pub struct DurableSubmitAllError {
    pub(crate) accepted: usize,
    pub(crate) stored_behind: Vec<usize>,
    pub(crate) source: DurableSubmitError,
}

impl DurableSubmitAllError {
    /// How many rows from the start are stored. The next row is not, unless the error is
    /// [undetermined](DurableSubmitError::is_undetermined). Rows behind it may be [stored](Self::stored_behind).
    pub fn accepted(&self) -> usize {
        self.accepted
    }

    /// The numbers, from 0, of rows behind the one that was not accepted that are stored nevertheless, in their order: at most
    /// 4,096 rows of other partitions, which had space before it. If the call is repeated for the rest, leave them out:
    /// otherwise they are written twice. If the error is [undetermined](DurableSubmitError::is_undetermined), others may be
    /// stored too.
    pub fn stored_behind(&self) -> &[usize] {
        &self.stored_behind
    }

    /// Why the next row was not accepted.
    pub fn submit_error(&self) -> &DurableSubmitError {
        &self.source
    }
}

/// `try_submit_all` stored no row.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{source}", row.map(|row| format!("row {row}: ")).unwrap_or_default())]
pub struct DurableTrySubmitAllError {
    pub(crate) row: Option<usize>,
    pub(crate) source: DurableSubmitError,
}

impl DurableTrySubmitAllError {
    /// The number, from 0, of the row that does not fit its table; `None` if no single row is at fault.
    pub fn row(&self) -> Option<usize> {
        self.row
    }

    /// Why no row was stored. All of them may be if it is [undetermined](DurableSubmitError::is_undetermined).
    pub fn submit_error(&self) -> &DurableSubmitError {
        &self.source
    }
}

/// `flush` ended before all rows in the log had their end.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct DurableFlushError(FlushKind);

#[derive(Debug, Clone, thiserror::Error)]
enum FlushKind {
    #[error("{}; {} in all, see health()", .0[0], .0.len())]
    Stopped(Vec<StoppedPartition>),
    #[error("the durable intake was closed before everything was written; the other rows are in its log")]
    Closed,
}

impl DurableFlushError {
    /// With at least one partition.
    pub(crate) fn stopped(partitions: Vec<StoppedPartition>) -> Self {
        Self(FlushKind::Stopped(partitions))
    }

    pub(crate) fn closed() -> Self {
        Self(FlushKind::Closed)
    }

    /// The partitions that do not go on without a person; empty if the intake was closed.
    pub fn stopped_partitions(&self) -> &[StoppedPartition] {
        match &self.0 {
            FlushKind::Stopped(partitions) => partitions,
            FlushKind::Closed => &[],
        }
    }
}
