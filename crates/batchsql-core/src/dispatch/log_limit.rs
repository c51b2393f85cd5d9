//! Owns how often a message is logged while the same error repeats.
//! Must not know what the message says, or look at a clock.

use std::time::Duration;

use tokio::time::Instant;

/// One message in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts messages that are not logged.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    logged_at: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// If a message may be logged now: the number of messages that were not logged since the last one.
    pub(crate) fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.logged_at.is_some_and(|at| now < at + INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_message_a_second_is_logged() {
        let (mut limit, start) = (LogLimit::default(), Instant::now());
        assert_eq!(limit.allow(start), Some(0));
        assert_eq!(limit.allow(start), None);
        assert_eq!(limit.allow(start + Duration::from_millis(999)), None);
        assert_eq!(limit.allow(start + Duration::from_secs(1)), Some(2));
        assert_eq!(limit.allow(start + Duration::from_secs(9)), Some(0));
    }
}
