//! Owns what connections tell when they are opened: how far away the server is, and how large a packet may be.
//! Must not know what follows from it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Round trips that are remembered: of the connections that were opened last.
const REMEMBERED: usize = 8;

/// What is known of the server of a sink.
#[derive(Debug)]
pub(crate) struct Learned {
    /// The shortest one counts, because others waited for something.
    round_trips: Mutex<VecDeque<Duration>>,
    /// Bytes of the largest packet that every connection so far may send.
    pub(crate) packet: AtomicUsize,
}

impl Default for Learned {
    fn default() -> Self {
        Self { round_trips: Mutex::default(), packet: AtomicUsize::new(usize::MAX) }
    }
}

impl Learned {
    /// Notes what a new connection has answered, and after which time.
    pub(crate) fn note(&self, packet: usize, round_trip: Duration) {
        self.packet.fetch_min(packet, Ordering::Relaxed);
        let mut last = self.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(round_trip);
    }

    /// Zero while nothing is known.
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
