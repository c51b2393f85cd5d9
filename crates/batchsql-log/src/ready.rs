//! Owns the future that waits until a reader may have more to read.
//! Must not know what is read.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::shared::Shared;

/// Completes when there may be more to read; from [`Reader::ready`](crate::Reader::ready).
///
/// # Cancel safety
///
/// It can be dropped and made again.
#[derive(Debug)]
#[must_use = "it does nothing unless it is waited for"]
pub struct Ready {
    shared: Arc<Shared>,
    /// What was known at the last read.
    seen: u64,
}

impl Ready {
    pub(crate) fn new(shared: Arc<Shared>, seen: u64) -> Self {
        Ready { shared, seen }
    }

    /// Blocks the thread; at most for `limit`. Returns whether there may be more to read.
    pub fn wait(self, limit: Option<Duration>) -> bool {
        self.shared.readable.wait_beyond(self.seen, limit)
    }
}

impl Future for Ready {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.readable.poll_beyond(self.seen, context) { Poll::Ready(()) } else { Poll::Pending }
    }
}
