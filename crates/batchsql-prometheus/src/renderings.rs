//! Owns when the metrics are rendered as text, and which requests share a rendering.
//! Must not know clients or HTTP.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::encoding::gzip;
use crate::exposition::Exposition;

/// The longest pause after a rendering that took long.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Renders the text for all requests. Requests that arrive during a rendering share the next one, so many cost no more
/// than one, and none gets a text rendered before it arrived. After each rendering there is a pause of the same
/// length, so continuous requests keep the thread busy for at most half of the time.
pub(crate) struct Renderings {
    exposition: Arc<Exposition>,
    /// Locked during a rendering; waiting requests get the lock in order.
    last: Mutex<Option<Rendering>>,
}

/// Every metric as it was at one time.
#[derive(Clone)]
pub(crate) struct Rendering {
    begun: Instant,
    /// No rendering begins before this time.
    pause: Instant,
    text: Bytes,
    gzip: Arc<OnceLock<Bytes>>,
}

impl Renderings {
    pub(crate) fn new(exposition: Arc<Exposition>) -> Self {
        Self { exposition, last: Mutex::default() }
    }

    /// The metrics as they are now or a little later.
    ///
    /// # Cancel safety
    /// After a cancellation, the next waiting request renders.
    pub(crate) async fn get(&self) -> Rendering {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(rendering) = last.as_ref().filter(|rendering| rendering.begun > asked) {
            return rendering.clone();
        }
        match last.as_ref() {
            Some(rendering) if rendering.pause > asked => sleep_until(rendering.pause).await,
            // Requests that have arrived by now start to wait.
            _ => yield_now().await,
        }
        let begun = Instant::now();
        let text = Bytes::from(self.exposition.render());
        let ended = Instant::now();
        let pause = ended + (ended - begun).min(LONGEST_PAUSE);
        last.insert(Rendering { begun, pause, text, gzip: Arc::default() }).clone()
    }
}

impl Rendering {
    pub(crate) fn text(&self) -> Bytes {
        self.text.clone()
    }

    /// The compressed text; the first request for it compresses.
    pub(crate) fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| gzip(&self.text).into()).clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_together_share_and_those_who_ask_later_get_another() {
        let renderings = Arc::new(Renderings::new(Arc::new(Exposition::new().unwrap())));
        let round = async || {
            let asked = Instant::now();
            let mut asking = JoinSet::new();
            for _ in 0..100 {
                let renderings = Arc::clone(&renderings);
                asking.spawn(async move { renderings.get().await });
            }
            let answers = asking.join_all().await;
            assert!(answers.iter().all(|answer| answer.begun > asked), "a request got an old rendering");
            let mut begun: Vec<_> = answers.iter().map(|answer| answer.begun).collect();
            begun.dedup();
            assert_eq!(begun.len(), 1, "they did not share");
            assert_eq!(answers[0].gzip(), answers[99].gzip());
            begun[0]
        };
        assert!(round().await < round().await);
    }

    #[tokio::test]
    async fn after_a_long_rendering_there_is_a_pause() {
        let renderings = Renderings::new(Arc::new(Exposition::new().unwrap()));
        let first = renderings.get().await;
        let second = renderings.get().await;
        assert!(second.begun >= first.pause && first.pause > first.begun);
    }

    #[tokio::test]
    async fn who_gives_up_does_not_keep_others_waiting() {
        let renderings = Arc::new(Renderings::new(Arc::new(Exposition::new().unwrap())));
        let mut first = Box::pin(renderings.get());
        tokio::select! {
            biased;
            _ = &mut first => panic!("the first request must let others start to wait"),
            () = std::future::ready(()) => {}
        }
        let second = tokio::spawn({
            let renderings = Arc::clone(&renderings);
            async move { renderings.get().await }
        });
        yield_now().await;
        drop(first);
        assert!(!second.await.unwrap().text().is_empty());
    }
}
