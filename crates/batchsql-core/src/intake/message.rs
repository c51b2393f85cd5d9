//! Owns the messages from submitters to the dispatcher.
//! Must not know what the dispatcher does with them.

use tokio::sync::oneshot;

use crate::write::ids::LaneId;

/// A message to the dispatcher.
pub(crate) enum Message {
    /// An open batch of the lane got its first row, or the lane has a batch that is ready.
    Lane(LaneId),
    /// Write everything that was accepted, then answer.
    Flush(oneshot::Sender<()>),
    /// A submitter waits for capacity.
    Pressure,
    /// A feed has tried to write rows outside of the buffer, so there is something to report.
    Stepped,
    /// Drain, then end. The deadline may become earlier, so it is not in the message.
    Close,
}
