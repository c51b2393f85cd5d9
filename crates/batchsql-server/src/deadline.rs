//! Owns when a time that a person has configured is over.
//! Must not know what it is for.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than any process runs. With a longer time the clock would overflow.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// From now on.
pub(crate) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_is_no_overflow() {
        assert!(deadline(Duration::MAX) > deadline(Duration::from_secs(3600)));
    }
}
