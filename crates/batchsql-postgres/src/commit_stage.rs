//! Owns when rows become durable: what is sent before is known to be undone when it is given up or its reply is lost.
//! Must not know statements.

use batchsql_core::{Attempt, ErrorClass, SinkError};

use crate::classify::LinkLost;

/// Where a statement stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CommitStage<'a> {
    /// In a transaction that is open: nothing of it is durable.
    Within,
    /// Alone: it commits itself.
    Commits(&'a Attempt),
}

impl CommitStage<'_> {
    pub(crate) fn commits(self) -> bool {
        matches!(self, Self::Commits(_))
    }

    /// To be called right before the message is sent with which the statement ends; what it means from here on that
    /// the link is lost.
    ///
    /// # Errors
    /// The pipeline has given the attempt up, and counts on nothing being written.
    pub(crate) fn begin(self) -> Result<LinkLost, SinkError> {
        match self {
            Self::Within => Ok(LinkLost::BeforeCommit),
            Self::Commits(attempt) if attempt.begin() => Ok(LinkLost::AfterCommit),
            Self::Commits(_) => Err(SinkError::new(ErrorClass::Transient, "the write was given up before its commit")),
        }
    }
}
