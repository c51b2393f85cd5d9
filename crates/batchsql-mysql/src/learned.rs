//! Owns what is measured when connections are opened: the round trip to the server and the maximum packet
//! size.
//! Must not know what the values are used for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The number of remembered round trips: those of the connections that were opened last.
const REMEMBERED: usize = 8;

/// What is known about the server of a sink.
#[derive(Debug)]
pub(crate) struct Learned {
    /// The shortest one is used, because the others include a wait.
    round_trips: Mutex<VecDeque<Duration>>,
    /// The smallest packet limit of all connections so far, in bytes.
    pub(crate) packet: AtomicUsize,
}

impl Default for Learned {
    fn default() -> Self {
        Self { round_trips: Mutex::default(), packet: AtomicUsize::new(usize::MAX) }
    }
}

impl Learned {
    /// Records the packet limit of a new connection, and the time of its answer.
    pub(crate) fn note(&self, packet: usize, round_trip: Duration) {
        self.packet.fetch_min(packet, Ordering::Relaxed);
        let mut last = self.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(round_trip);
    }

    /// Zero if nothing is known yet.
    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trips.lock().unwrap_or_else(PoisonError::into_inner).iter().min().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_of_the_last_round_trips_counts() {
        let learned = Learned::default();
        assert_eq!(learned.round_trip(), Duration::ZERO);
        [9, 3, 5].iter().for_each(|ms| learned.note(1_000, Duration::from_millis(*ms)));
        assert_eq!(learned.round_trip(), Duration::from_millis(3));
        // The server has moved.
        (0..REMEMBERED).for_each(|_| learned.note(2_000, Duration::from_millis(20)));
        assert_eq!(learned.round_trip(), Duration::from_millis(20));
        assert_eq!(learned.packet.load(Ordering::Relaxed), 1_000);
    }
}
