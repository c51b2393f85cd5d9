//! Owns when a worker that is closed has to have ended: the earliest limit of all calls holds.
//! Must not know what ends.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The limit of a close, which a later call may shorten.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    /// `None` until it is closed.
    at: watch::Sender<Option<Instant>>,
}

impl Closing {
    /// It is closed, and has this time from now on, unless it has less already.
    pub(crate) fn ends_within(&self, limit: Duration) {
        let at = Instant::now() + limit;
        self.at.send_if_modified(|earliest| {
            let is_earlier = earliest.is_none_or(|earliest| at < earliest);
            if is_earlier {
                *earliest = Some(at);
            }
            is_earlier
        });
    }

    /// What is left of the limit.
    pub(crate) fn left(&self) -> Duration {
        let at = *self.at.borrow();
        at.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Completes when the limit, as it is then, was over for this time.
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub(crate) async fn is_over_for(&self, more: Duration) {
        let mut changes = self.at.subscribe();
        loop {
            let at = *changes.borrow_and_update();
            let over = async {
                match at {
                    Some(at) => sleep_until(at + more).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                // The sender is here.
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_limit_holds() {
        let (closing, begin) = (Closing::default(), Instant::now());
        closing.ends_within(Duration::from_secs(100));
        let shortened = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            closing.ends_within(Duration::from_secs(1));
            closing.ends_within(Duration::from_secs(50));
        };
        tokio::join!(closing.is_over_for(Duration::from_secs(5)), shortened);
        assert_eq!((begin.elapsed(), closing.left()), (Duration::from_secs(16), Duration::ZERO));
    }
}
