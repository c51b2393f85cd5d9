//! Owns how far away the server is: the shortest round trip lately.
//! Must not know what follows from it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Round trips that are remembered: of the connections that were opened last.
const REMEMBERED: usize = 8;

/// The round trips to the server of a sink. The shortest one counts, because others waited for something.
#[derive(Debug, Default)]
pub(crate) struct Distance(Mutex<VecDeque<Duration>>);

impl Distance {
    pub(crate) fn note(&self, round_trip: Duration) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(round_trip);
    }

    /// Zero while nothing is known.
    pub(crate) fn round_trip(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().min().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_of_the_last_round_trips_counts() {
        let distance = Distance::default();
        assert_eq!(distance.round_trip(), Duration::ZERO);
        [9, 3, 5].iter().for_each(|ms| distance.note(Duration::from_millis(*ms)));
        assert_eq!(distance.round_trip(), Duration::from_millis(3));
        // The server has moved.
        (0..REMEMBERED).for_each(|_| distance.note(Duration::from_millis(20)));
        assert_eq!(distance.round_trip(), Duration::from_millis(20));
    }
}
