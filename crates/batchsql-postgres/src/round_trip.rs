//! Owns the round trip time to the server, and its effect on the write strategy.
//! Must not know connections or plans.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The shortest recently measured time. It is the time of the network, not of the server's work.
#[derive(Debug)]
pub(crate) struct RoundTrip(AtomicU64);

const UNKNOWN: u64 = u64::MAX;

impl Default for RoundTrip {
    fn default() -> Self {
        Self(AtomicU64::new(UNKNOWN))
    }
}

impl RoundTrip {
    /// Whether it was never measured.
    pub(crate) fn is_unknown(&self) -> bool {
        self.0.load(Ordering::Relaxed) == UNKNOWN
    }

    /// Records a cheap exchange.
    pub(crate) fn observe(&self, took: Duration) {
        self.0.fetch_min(nanos(took), Ordering::Relaxed);
    }

    /// Starts again with an exchange: the network path may have changed, for example after a failover.
    pub(crate) fn renew(&self, took: Duration) {
        self.0.store(nanos(took), Ordering::Relaxed);
    }

    /// The row count from which a strategy is worth its additional round trips, if it saves `saved` per row.
    pub(crate) fn rows_worth(&self, trips: u32, saved: Duration) -> usize {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => 0,
            nanos => usize::try_from(nanos.saturating_mul(trips.into()) / nanos_of(saved)).unwrap_or(usize::MAX),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(UNKNOWN - 1).min(UNKNOWN - 1)
}

fn nanos_of(saved: Duration) -> u64 {
    nanos(saved).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_way_needs_more_rows_to_be_worth_a_round_trip() {
        let (way, saved) = (RoundTrip::default(), Duration::from_nanos(2_500));
        assert!(way.is_unknown());
        assert_eq!(way.rows_worth(1, saved), 0);
        way.observe(Duration::from_millis(50));
        assert_eq!(way.rows_worth(1, saved), 20_000);
        way.observe(Duration::from_millis(80));
        assert_eq!(way.rows_worth(1, saved), 20_000);
        way.observe(Duration::from_micros(100));
        assert_eq!((way.rows_worth(1, saved), way.rows_worth(5, saved)), (40, 200));
        way.renew(Duration::from_millis(10));
        assert_eq!(way.rows_worth(1, saved), 4_000);
        way.renew(Duration::MAX);
        assert!(!way.is_unknown());
    }
}
