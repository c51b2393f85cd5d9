//! Owns whether a reason is said again: a partition that waits tries every few seconds, and has the same reason each time.
//! Must not know partitions.

use std::time::Duration;

use tokio::time::Instant;

/// The same reason is said again after this time.
const AGAIN: Duration = Duration::from_secs(300);

/// What was said last.
#[derive(Debug, Default)]
pub(crate) struct Said(Option<(String, Instant)>);

impl Said {
    /// Whether the reason is said now: it is another one, or was said long ago.
    pub(crate) fn is_due(&mut self, reason: &str, now: Instant) -> bool {
        let is_due = match &self.0 {
            Some((said, at)) => said != reason || now.duration_since(*at) >= AGAIN,
            None => true,
        };
        if is_due {
            self.0 = Some((reason.to_owned(), now));
        }
        is_due
    }

    /// What comes next is said in any case.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_for_a_time() {
        let (mut said, begin) = (Said::default(), Instant::now());
        let due =
            |said: &mut Said, reason: &str, seconds: u64| said.is_due(reason, begin + Duration::from_secs(seconds));
        assert!(due(&mut said, "a", 0));
        assert!(!due(&mut said, "a", 5) && !due(&mut said, "a", 299));
        assert!(due(&mut said, "b", 299), "another one");
        assert!(!due(&mut said, "b", 300));
        assert!(due(&mut said, "b", 599));
        said.forget();
        assert!(due(&mut said, "b", 600));
    }
}
