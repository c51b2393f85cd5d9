//! Owns when it is logged that calls wait because the log has no space on its disk, and that rows are stored again.
//! Must not know what is logged, or look at a clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One message in this time: a log that is nearly full gets a little space again and again.
const INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct SpaceLog {
    /// A wait was logged, and no rows were stored since.
    is_said: AtomicBool,
    said_at: Mutex<Option<Instant>>,
}

impl SpaceLog {
    /// A call waits: whether to log it. `said` follows.
    pub(crate) fn waits(&self, now: Instant) -> bool {
        let mut said_at = self.said_at.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_said.load(Ordering::Relaxed) || said_at.is_some_and(|at| now < at + INTERVAL) {
            return false;
        }
        *said_at = Some(now);
        true
    }

    /// It was logged.
    pub(crate) fn said(&self) {
        self.is_said.store(true, Ordering::Relaxed);
    }

    /// Rows were stored: how long ago a wait was logged, for the first rows since.
    pub(crate) fn stored(&self, now: Instant) -> Option<Duration> {
        // Nearly always nobody has waited.
        let was_said = self.is_said.load(Ordering::Relaxed) && self.is_said.swap(false, Ordering::Relaxed);
        let said_at = || *self.said_at.lock().unwrap_or_else(PoisonError::into_inner);
        was_said.then(said_at).flatten().map(|at| now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_and_its_end_are_logged_once_a_minute() {
        let (log, start) = (SpaceLog::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(log.stored(start), None, "nobody has waited");
        assert!(log.waits(start));
        assert_eq!(log.stored(start), None, "it is not logged yet");
        log.said();
        assert!(!log.waits(after(1)), "others wait too");
        assert!(!log.waits(after(100)), "it has not gone on");
        assert_eq!(log.stored(after(100)), Some(Duration::from_secs(100)));
        assert_eq!(log.stored(after(100)), None);
        assert!(log.waits(after(101)));
        log.said();
        assert_eq!(log.stored(after(102)), Some(Duration::from_secs(1)));
        assert!(!log.waits(after(160)), "within a minute");
        assert_eq!(log.stored(after(160)), None, "nothing was logged");
        assert!(log.waits(after(161)));
    }
}
