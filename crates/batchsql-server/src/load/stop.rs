//! Owns the wish that loads end: what is being written is finished where it would be written again otherwise, and nothing is begun.
//! Must not know who wishes it.

use std::time::Duration;

use tokio::sync::watch;

use crate::exit::Failure;

/// What is being written has this time. Behind it, rows that were written may be written again.
pub(crate) const LAST_STEP: Duration = Duration::from_secs(5);

/// Whoever may end loads. Dropping it ends none.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

impl Stopper {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn watched(&self) -> Stop {
        Stop(self.0.subscribe())
    }
}

/// What a load looks at.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    pub(crate) fn is_wanted(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the load is to end.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn wanted(&mut self) {
        if self.0.wait_for(|is_wanted| *is_wanted).await.is_err() {
            std::future::pending().await
        }
    }
}

/// How a load ends then.
pub(crate) fn stopped() -> Failure {
    Failure::of_stop("it was stopped; a later run goes on")
}
