//! Owns the moments of a run at which faults begin and end, and how they are put off.
//! Must not know clocks, or how a fault is caused.

use std::time::Duration;

use super::plan::{Timed, group};

/// A fault, by its place in the timeline, begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Begin(usize),
    End(usize),
}

impl Moment {
    fn fault(self) -> usize {
        let (Self::Begin(fault) | Self::End(fault)) = self;
        fault
    }
}

/// What is left of a timeline, the next moment first.
#[derive(Debug)]
pub(super) struct Moments {
    left: Vec<(Duration, Moment)>,
    /// Of each fault.
    groups: Vec<Option<u32>>,
}

impl Moments {
    pub(super) fn of(timeline: &[Timed]) -> Self {
        let both =
            |(fault, timed): (usize, &Timed)| [(timed.begin, Moment::Begin(fault)), (timed.end, Moment::End(fault))];
        let groups = timeline.iter().map(|timed| group(timed.fault)).collect();
        let mut moments = Self { left: timeline.iter().enumerate().flat_map(both).collect(), groups };
        moments.sort();
        moments
    }

    fn sort(&mut self) {
        self.left.sort_by_key(|(at, _)| *at);
    }

    /// The next moment, and its time from the begin of the timeline.
    pub(super) fn take(&mut self) -> Option<(Duration, Moment)> {
        if self.left.is_empty() { None } else { Some(self.left.remove(0)) }
    }

    /// The moment that was taken comes again at `to`. What is left of its group moves by as much, because its faults exclude each
    /// other; other groups keep their times.
    pub(super) fn put_off(&mut self, (at, moment): (Duration, Moment), to: Duration) {
        let group = self.groups[moment.fault()];
        for (other_at, other) in &mut self.left {
            if self.groups[other.fault()] == group {
                *other_at += to.saturating_sub(at);
            }
        }
        // Before others at that time.
        self.left.insert(0, (to.max(at), moment));
        self.sort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::fault::Fault;

    #[test]
    fn what_is_put_off_keeps_its_order_and_lets_others_go_first() {
        let seconds = Duration::from_secs;
        let timed = |fault, begin, end| Timed { fault, begin: seconds(begin), end: seconds(end) };
        let timeline =
            [timed(Fault::ColumnAdded, 1, 3), timed(Fault::SessionsLeft, 0, 5), timed(Fault::ServerKilled, 4, 6)];
        let mut moments = Moments::of(&timeline);
        assert_eq!(moments.take(), Some((seconds(0), Moment::Begin(1))));
        let locked = moments.take().unwrap();
        assert_eq!(locked, (seconds(1), Moment::Begin(0)));
        // Again and again, until the lock is free.
        moments.put_off(locked, seconds(3));
        let locked = moments.take().unwrap();
        assert_eq!(locked, (seconds(3), Moment::Begin(0)));
        moments.put_off(locked, seconds(6));
        let order: Vec<_> = std::iter::from_fn(|| moments.take()).collect();
        let expected = [
            (5, Moment::End(1)),
            (6, Moment::Begin(0)),
            (8, Moment::End(0)),
            (9, Moment::Begin(2)),
            (11, Moment::End(2)),
        ];
        assert_eq!(order, expected.map(|(at, moment)| (seconds(at), moment)));
    }
}
