//! Owns the delays between attempts: exponential backoff with full jitter and a time budget.
//! Must not know clocks or sleeps: it takes and returns durations.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::error::ErrorClass;

/// The shortest delay after jitter.
const SHORTEST: Duration = Duration::from_millis(1);

/// The delays before the attempts of one batch, or before the probes of a parked table.
#[derive(Debug)]
pub(crate) struct RetrySchedule {
    delays: ExponentialBackoff,
    slow_delays: ExponentialBackoff,
    budget: Duration,
}

impl RetrySchedule {
    /// Delays for at most `budget` from the first error on.
    pub(crate) fn new(budget: Duration) -> Self {
        let schedule = |min, max| {
            ExponentialBuilder::default().with_min_delay(min).with_max_delay(max).without_max_times().build()
        };
        Self {
            delays: schedule(Duration::from_millis(5), Duration::from_secs(2)),
            // A full disk or a failover lasts longer than milliseconds.
            slow_delays: schedule(Duration::from_millis(250), Duration::from_secs(5)),
            budget,
        }
    }

    /// The time from the first error on in which attempts are made.
    pub(crate) fn budget(&self) -> Duration {
        self.budget
    }

    /// The delay before the next attempt, or `None` when `elapsed` since the first error leaves no
    /// time for one.
    pub(crate) fn next(&mut self, class: ErrorClass, elapsed: Duration) -> Option<Duration> {
        let left = self.budget.checked_sub(elapsed).filter(|left| !left.is_zero())?;
        let delays = if class == ErrorClass::Resource { &mut self.slow_delays } else { &mut self.delays };
        // Full jitter: anything up to the delay, so that clients that failed at the same time do not retry at the same
        // time (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
        delays.next().map(|delay| delay.mul_f64(fastrand::f64()).max(SHORTEST).min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_end_with_the_budget() {
        let mut schedule = RetrySchedule::new(Duration::from_secs(10));
        let mut elapsed = Duration::ZERO;
        let mut attempts = 0;
        while let Some(delay) = schedule.next(ErrorClass::Transient, elapsed) {
            assert!(delay <= Duration::from_secs(2), "{delay:?}");
            elapsed += delay + Duration::from_millis(1);
            attempts += 1;
        }
        assert!((8..200).contains(&attempts), "{attempts} attempts");
        assert!(elapsed >= Duration::from_secs(10));
    }

    #[test]
    fn jitter_is_full() {
        // The ninth delay is 1.28 s before jitter: over many batches it must be small and large.
        let ninth = || {
            let mut schedule = RetrySchedule::new(Duration::from_secs(60));
            (0..9).map(|_| schedule.next(ErrorClass::Transient, Duration::ZERO).unwrap()).last().unwrap()
        };
        let delays: Vec<Duration> = (0..200).map(|_| ninth()).collect();
        assert!(delays.iter().all(|delay| *delay <= Duration::from_millis(1_280)));
        assert!(delays.iter().any(|delay| *delay < Duration::from_millis(320)), "a quarter is below a quarter");
        assert!(delays.iter().any(|delay| *delay > Duration::from_millis(960)), "a quarter is above three quarters");
    }

    #[test]
    fn resources_come_back_slowly() {
        let sum = |class| {
            let mut schedule = RetrySchedule::new(Duration::from_secs(600));
            (0..40).map(|_| schedule.next(class, Duration::ZERO).unwrap()).sum::<Duration>()
        };
        assert!(sum(ErrorClass::Resource) > sum(ErrorClass::Transient));
    }

    #[test]
    fn no_budget_means_no_retry() {
        assert_eq!(RetrySchedule::new(Duration::ZERO).next(ErrorClass::Transient, Duration::ZERO), None);
    }
}
