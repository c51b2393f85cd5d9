//! Owns the point from which rows may become durable: before it, an abandoned statement or a lost reply means a
//! rollback.
//! Must not know statements.

use batchsql_core::{Attempt, ErrorClass, SinkError};

use crate::classify::LinkLost;

/// The position of a statement relative to the commit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CommitStage<'a> {
    /// In an open transaction: nothing is durable.
    Within,
    /// Without a transaction: it commits itself.
    Commits(&'a Attempt),
}

impl CommitStage<'_> {
    pub(crate) fn commits(self) -> bool {
        matches!(self, Self::Commits(_))
    }

    /// Call it right before the last message of the statement is sent. Returns the meaning of a lost connection
    /// from here on.
    ///
    /// # Errors
    /// The pipeline has abandoned the attempt and assumes that nothing is written.
    pub(crate) fn begin(self) -> Result<LinkLost, SinkError> {
        match self {
            Self::Within => Ok(LinkLost::BeforeCommit),
            Self::Commits(attempt) if attempt.begin() => Ok(LinkLost::AfterCommit),
            Self::Commits(_) => Err(SinkError::new(ErrorClass::Transient, "the write was abandoned before its commit")),
        }
    }
}
