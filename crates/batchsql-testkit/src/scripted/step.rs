//! Owns what the sink may be told to do.
//! Must not know how it does it.

use std::time::Duration;

use batchsql_core::{ErrorClass, SinkError};

/// A defect on purpose.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "only for tests of tests")]
pub enum Sabotage {
    /// Steps of an earlier epoch are accepted.
    NoEpochTest,
    /// A position moves in a transaction of its own, before that of its rows.
    PositionAlone,
    /// The statement that moves a position changes nothing.
    PositionStands,
}

/// What the sink does with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Applies the rows.
    Apply,
    /// Waits, then applies the rows.
    Delay(Duration),
    /// Applies nothing and fails with this class.
    Fail(ErrorClass),
    /// Refuses the row with this number (the first is 0) and applies the others, like databases that report the outcome
    /// row by row.
    RejectRow(usize),
    /// Leaves the row with this number without an outcome, for a reason of this class, and the later ones with its key;
    /// applies the others, like databases without transactions. In an atomic batch nothing is applied.
    LeaveRow(usize, ErrorClass),
    /// Applies the rows, but reports the row with this number, and the later ones with its key, as
    /// [`ErrorClass::Unknown`]: their replies were lost. An atomic batch fails as a whole with this class.
    LoseRow(usize),
    /// Applies the rows, then fails with [`ErrorClass::Unknown`], as when the connection breaks after the commit.
    LoseReply,
    /// Fails at once with [`ErrorClass::Unknown`], and applies the rows only when [`deliver`](crate::ScriptedSink::deliver) is called,
    /// unless the session was ended before: an abandoned write that reaches the database late.
    Late,
    /// The same without a reply: the write hangs until the pipeline gives it up.
    LateAndSilent,
    /// Applies nothing and panics.
    Panic,
    /// Waits until [`release`](crate::ScriptedSink::release), then applies the rows.
    Hang,
    /// Applies the rows, then waits until [`release`](crate::ScriptedSink::release): the reply is on its way.
    HangAfter,
    /// Waits in a queue of the sink until [`release`](crate::ScriptedSink::release), then applies the rows: while it
    /// waits, nothing has been sent.
    HangInQueue,
}

/// The error of a step that fails.
pub(super) fn scripted(class: ErrorClass) -> SinkError {
    SinkError::with_code(class, "scripted", "the script says so")
}
