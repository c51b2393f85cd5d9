//! Owns waiting for space.
//! Must not know what the space is for.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{error::LogError, shared::Shared};

/// Completes when there is space; from [`Log::space`](crate::Log::space).
///
/// # Cancel safety
///
/// It reserves nothing.
#[derive(Debug)]
#[must_use = "it does nothing unless it is waited for"]
pub struct Space {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Space {
    pub(crate) fn new(shared: Arc<Shared>, bytes: u64) -> Self {
        Space { shared, bytes }
    }

    /// `None` while there is no space.
    fn outcome(&self) -> Option<Result<(), LogError>> {
        let mut intake = self.shared.intake();
        match self.shared.check_space(&intake, self.bytes) {
            Err(error) if error.is_full() => {
                intake.wants_space = true;
                drop(intake);
                self.shared.work.notify_one();
                None
            }
            outcome => Some(outcome),
        }
    }

    /// Blocks the thread until there is space.
    ///
    /// # Errors
    ///
    /// If the log is closed.
    pub fn wait(self) -> Result<(), LogError> {
        loop {
            let version = self.shared.space.version();
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            self.shared.space.wait_beyond(version, None);
        }
    }
}

impl Future for Space {
    type Output = Result<(), LogError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let version = self.shared.space.version();
            if let Some(outcome) = self.outcome() {
                return Poll::Ready(outcome);
            }
            if !self.shared.space.poll_beyond(version, context) {
                return Poll::Pending;
            }
        }
    }
}
