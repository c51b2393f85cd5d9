//! Owns the thread that repeats a job until its owner is dropped.
//! Must not know what the job is.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::error::PrometheusError;

const THREAD: &str = "batchsql-upkeep";

/// Repeats a job on a thread of its own. Dropping it ends the thread and waits for its end.
///
/// It is a thread and not a task because metrics can be recorded without a runtime, and because histograms
/// would grow while all workers of a runtime are busy.
pub(crate) struct Upkeep {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    pub(crate) fn start(interval: Duration, job: impl Fn() + Send + 'static) -> Result<Self, PrometheusError> {
        let (stop, stopped) = channel::<()>();
        let repeat = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                job();
            }
        };
        let thread = Builder::new().name(THREAD.to_owned()).spawn(repeat);
        let thread = thread.map_err(|source| PrometheusError::thread(THREAD, source))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        // The closed channel wakes the thread at once.
        drop(self.stop.take());
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        if panicked {
            tracing::error!("the upkeep of the metrics panicked, which is a defect; histograms may have grown");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    #[test]
    fn it_repeats_and_ends_with_its_owner() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let job = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        let upkeep = Upkeep::start(Duration::from_millis(1), job).unwrap();
        let begin = Instant::now();
        while runs.load(Ordering::SeqCst) < 3 {
            assert!(begin.elapsed() < Duration::from_secs(60), "the job does not run");
            std::thread::yield_now();
        }
        drop(upkeep);
        assert_eq!(Arc::strong_count(&runs), 1, "the thread and its job are gone");
    }

    #[test]
    fn it_ends_at_once_however_long_the_interval() {
        let begin = Instant::now();
        drop(Upkeep::start(Duration::from_secs(3_600), || {}).unwrap());
        assert!(begin.elapsed() < Duration::from_secs(60));
    }
}
