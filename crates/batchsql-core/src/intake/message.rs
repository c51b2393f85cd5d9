//! Owns what submitters tell the dispatcher.
//! Must not know what the dispatcher does about it.

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::write::ids::LaneId;

/// What the dispatcher is told.
pub(crate) enum Message {
    /// An open batch of the lane got its first row, or the lane has a batch that is ready.
    Lane(LaneId),
    /// Write everything that was accepted, then answer.
    Flush(oneshot::Sender<()>),
    /// A submitter waits for capacity.
    Pressure,
    /// Drain until the deadline, then end.
    Close { deadline: Instant },
}
