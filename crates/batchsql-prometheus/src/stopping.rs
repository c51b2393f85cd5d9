//! Owns the signal that a server begins to stop.
//! Must not know what stops.

use tokio::sync::watch;

/// Signals that a server begins to stop.
#[derive(Clone)]
pub(crate) struct Stopping(watch::Receiver<()>);

impl Stopping {
    /// The receiver of a channel that is closed when the server stops.
    pub(crate) fn new(closed: watch::Receiver<()>) -> Self {
        Self(closed)
    }

    /// The sender never sends; it only closes the channel.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits until the server begins to stop.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub(crate) async fn begins(&mut self) {
        let _ = self.0.changed().await;
    }
}
