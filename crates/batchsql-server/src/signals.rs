//! Owns the signals that end the program.
//! Must not know what ends.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, from the moment this is made: one that comes earlier ends the process at once.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// The system does not allow handlers of signals.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for SIGTERM or SIGINT, and returns its name.
    ///
    /// # Cancel safety
    /// A signal is not lost.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
