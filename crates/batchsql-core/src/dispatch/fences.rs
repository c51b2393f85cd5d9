//! Owns the abandoned writes that may still take effect: which session is ended next, which lane waits for it.
//! Must not know how a session is ended, or look at a clock.
//!
//! Example: a write of lane 2 times out. The server may still execute it, or it may reach the server later. Lane 2
//! writes nothing until its session has ended; the other lanes continue. If the session cannot be ended, the lane waits
//! for the time after which the sink states that the write can no longer take effect.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ErrorClass;
use crate::write::flight::AbandonedWrite;
use crate::write::ids::LaneId;
use crate::write::retry::RetrySchedule;
use crate::write::session::{Session, SessionEnd};

/// The longest delay before a session is checked again.
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// The fences of one pipeline.
pub(crate) struct Fences {
    waiting: VecDeque<Fence>,
    /// Lanes that wait for a fixed time, because a session cannot be ended.
    timed: BTreeSet<(Instant, u64, LaneId)>,
    next_number: u64,
    is_running: bool,
    delays: RetrySchedule,
    next_try: Instant,
}

struct Fence {
    lane: LaneId,
    session: Session,
    since: Instant,
}

/// What an abandoned write means for its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It waits until the session has ended, or for a fixed time.
    Waits,
    /// The write ends before a later one begins.
    Free,
    /// Nothing can be done: the lane continues, and its order is not guaranteed.
    Unordered,
}

impl Fences {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            timed: BTreeSet::new(),
            next_number: 0,
            is_running: false,
            delays: RetrySchedule::new(Duration::MAX),
            next_try: now,
        }
    }

    /// Adds an abandoned write of the lane. `limit` is the time after which it can no longer take effect, if known.
    pub(crate) fn add(&mut self, lane: LaneId, write: AbandonedWrite, limit: Option<Duration>) -> Verdict {
        match (write.session, limit) {
            (_, Some(Duration::ZERO)) => Verdict::Free,
            (Some(session), _) => {
                self.waiting.push_back(Fence { lane, session, since: write.since });
                Verdict::Waits
            }
            (None, limit) => self.wait_for_time(lane, write.since, limit),
        }
    }

    fn wait_for_time(&mut self, lane: LaneId, since: Instant, limit: Option<Duration>) -> Verdict {
        let Some(limit) = limit else { return Verdict::Unordered };
        self.timed.insert((since + limit, self.next_number, lane));
        self.next_number += 1;
        Verdict::Waits
    }

    /// The session to end now, one at a time. It must be followed by `ended`.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Session> {
        if self.is_running || now < self.next_try {
            return None;
        }
        let session = self.waiting.front()?.session.clone();
        self.is_running = true;
        Some(session)
    }

    /// Takes the result of ending the session that `next` returned; `None` if the server could not be asked. Returns
    /// the lane and its verdict: `Waits` if it keeps waiting.
    pub(crate) fn ended(
        &mut self,
        end: Option<SessionEnd>,
        limit: Option<Duration>,
        now: Instant,
    ) -> Option<(LaneId, Verdict)> {
        self.is_running = false;
        let fence = self.waiting.pop_front()?;
        let lane = fence.lane;
        match end {
            Some(SessionEnd::Ended) => {
                self.delays = RetrySchedule::new(Duration::MAX);
                self.next_try = now;
                Some((lane, Verdict::Free))
            }
            Some(SessionEnd::Impossible) => Some((lane, self.wait_for_time(lane, fence.since, limit))),
            Some(SessionEnd::Pending) | None => {
                let delay = self.delays.next(ErrorClass::Transient, Duration::ZERO).unwrap_or(LONGEST_DELAY);
                self.next_try = now + delay.min(LONGEST_DELAY);
                // Other sessions are next, so that one unreachable server does not delay them.
                self.waiting.push_back(fence);
                Some((lane, Verdict::Waits))
            }
        }
    }

    /// A lane whose time is over.
    pub(crate) fn pop_timed(&mut self, now: Instant) -> Option<LaneId> {
        let first = self.timed.first().copied().filter(|(until, ..)| *until <= now)?;
        self.timed.remove(&first);
        Some(first.2)
    }

    /// Lanes that wait for a time.
    pub(crate) fn timed_lanes(&self) -> Vec<LaneId> {
        self.timed.iter().map(|(_, _, lane)| *lane).collect()
    }

    /// When the next step is due.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        let next_try = (!self.is_running && !self.waiting.is_empty()).then_some(self.next_try);
        let timed = self.timed.first().map(|(until, ..)| *until);
        next_try.into_iter().chain(timed).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(lane: usize) -> LaneId {
        LaneId { table: 0, lane }
    }

    fn write(session: Option<u32>, since: Instant) -> AbandonedWrite {
        AbandonedWrite { session: session.map(Session::new), since }
    }

    #[tokio::test(start_paused = true)]
    async fn one_session_is_ended_at_a_time_and_all_have_their_turn() {
        let now = Instant::now();
        let mut fences = Fences::new(now);
        assert_eq!(fences.add(lane(0), write(Some(0), now), None), Verdict::Waits);
        assert_eq!(fences.add(lane(1), write(Some(1), now), None), Verdict::Waits);
        let name = |session: Option<Session>| session.map(|session| *session.name::<u32>().unwrap());
        assert_eq!(name(fences.next(now)), Some(0));
        assert!(fences.next(now).is_none(), "one at a time");
        assert_eq!(fences.ended(Some(SessionEnd::Pending), None, now), Some((lane(0), Verdict::Waits)));
        assert!(fences.next(now).is_none(), "after a delay");
        let later = fences.next_time().unwrap();
        assert_eq!(name(fences.next(later)), Some(1));
        assert_eq!(fences.ended(Some(SessionEnd::Ended), None, later), Some((lane(1), Verdict::Free)));
        assert_eq!(name(fences.next(later)), Some(0));
        assert_eq!(fences.ended(None, None, later), Some((lane(0), Verdict::Waits)));
        let later = fences.next_time().unwrap();
        assert_eq!(name(fences.next(later)), Some(0));
        let limit = Some(Duration::from_secs(900));
        assert_eq!(fences.ended(Some(SessionEnd::Impossible), limit, later), Some((lane(0), Verdict::Waits)));
        assert_eq!(fences.next_time(), Some(now + Duration::from_secs(900)), "from when it was given up");
        assert_eq!(fences.pop_timed(now + Duration::from_secs(899)), None);
        assert_eq!(fences.pop_timed(now + Duration::from_secs(900)), Some(lane(0)));
        assert_eq!(fences.next_time(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_can_be_done_the_lane_goes_on() {
        let now = Instant::now();
        let mut fences = Fences::new(now);
        assert_eq!(fences.add(lane(0), write(None, now), None), Verdict::Unordered);
        assert_eq!(fences.add(lane(0), write(Some(1), now), Some(Duration::ZERO)), Verdict::Free);
        assert_eq!(fences.next_time(), None);
    }
}
