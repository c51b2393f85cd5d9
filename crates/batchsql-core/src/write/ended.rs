//! Owns how the writing of a batch, or of a range of its rows, ended.
//! Must not know how rows are written.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{ErrorClass, SinkError};
use crate::outcome::outcomes::FailureKind;
use crate::write::job::Job;
use crate::write::session::Session;

/// Why a range of rows was not written.
pub(crate) enum Stop {
    /// At least one of the rows is at fault.
    Bad(SinkError),
    /// The rows cannot be written by one statement.
    Inseparable(SinkError),
    /// They were refused, and some of them may already be in the database.
    MaybeWritten(SinkError),
    /// They were refused with an error that the table or one row may have caused; with the last commit before.
    Doubtful(SinkError, u64),
    /// They were refused until their time was over, with a transient error that one of them may have caused.
    Repeated(SinkError),
    /// No further retry is possible.
    Failed(FailureKind, SinkError),
    /// The batch must wait.
    Pause(Pause),
}

/// Why a table is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParkReason {
    /// The check of the table failed: it does not exist, or may not be written.
    Table,
    /// Rows that were tried alone were refused, and none was committed.
    Rows,
    /// The search for bad rows has used its statements. The next try continues it, so it ends.
    Search,
}

/// Why a batch must wait.
pub(crate) enum Pause {
    /// It is retried.
    BackOff(Duration, SinkError),
    /// It is not known whether the table or its rows are at fault: other batches may show it meanwhile.
    Wait(Duration, SinkError),
    /// The table cannot be written.
    Park(ParkReason, SinkError),
}

/// A connection that the next batch can use again.
pub(crate) struct Connection<C> {
    pub(crate) conn: C,
    /// When it was acquired.
    pub(crate) since: Instant,
    /// Its session, once it was asked for.
    pub(crate) session: Option<Option<Session>>,
}

/// How the writing of a batch ended.
pub(crate) enum Ended<C> {
    /// Every row has its outcome.
    Done {
        /// Whether rows were written.
        has_written: bool,
        /// The error with which rows were given up because `retry_for` was over.
        expired: Option<SinkError>,
        /// Its connection, if the next batch may use it.
        connection: Option<Connection<C>>,
    },
    /// It is tried again after a delay, and has not failed.
    Waits { job: Box<Job>, delay: Duration, error: SinkError },
    /// It failed and is retried after a delay.
    BackOff { job: Box<Job>, delay: Duration, error: SinkError },
    /// Its table cannot be written for now.
    Parked { job: Box<Job>, error: SinkError, has_written: bool, reason: ParkReason },
}

/// The error of a call that took too long.
pub(crate) fn timed_out(what: &str, after: Duration, class: ErrorClass) -> SinkError {
    SinkError::new(class, format!("{what} took longer than statement_timeout = {after:?}"))
}
