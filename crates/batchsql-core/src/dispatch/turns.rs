//! Owns the turns of the lanes that wait for a permit, by the weights of their tables.
//! Must not know batches, permits or clocks.
//!
//! Each lane that begins to wait gets a place behind the turn that was taken last: one whole step behind it with weight 1,
//! and a quarter of a step with weight 4. The lane with the first place is next; of equal places the one that has waited
//! longer. So a lane with weight 4 has four turns for each turn of a lane with weight 1, no lane waits for more than the
//! turns that the weights of the others give them, and with equal weights the lanes have turns in the order in which they
//! began to wait. A lane that did not wait has no advantage from that later.
//!
//! Example: lane U has weight 4, lane B has weight 1, and both always have batches.
//!
//! ```text
//! both begin to wait           U 1/4, B 1
//! the next turns               U at 1/4, U at 1/2, U at 3/4, B at 1 (it has waited longer than U for 1), U at 1
//! then                         U at 5/4, U at 3/2, U at 7/4, B at 2, U at 2
//! ```

use std::collections::VecDeque;

use crate::write::ids::LaneId;

/// The distance of two turns of a lane with weight 1: it can be divided by every number up to 16.
const STEP: u64 = 720_720;

/// The lanes that wait, the next one first.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    waiting: VecDeque<(u64, LaneId)>,
    /// The place of the turn that was taken last.
    last: u64,
}

/// A turn that a lane may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) lane: LaneId,
    place: u64,
}

impl Turns {
    /// A lane of a table with this weight begins to wait.
    pub(crate) fn wait(&mut self, lane: LaneId, weight: u32) {
        let place = self.last + (STEP / u64::from(weight.max(1))).max(1);
        let at = self.waiting.partition_point(|(other, _)| *other <= place);
        self.waiting.insert(at, (place, lane));
    }

    /// The next lane. It no longer waits. If it starts a batch, `take` must follow.
    pub(crate) fn next(&mut self) -> Option<Turn> {
        self.waiting.pop_front().map(|(place, lane)| Turn { lane, place })
    }

    /// This lane, if it waits, before others that have waited longer. It no longer waits.
    pub(crate) fn next_of(&mut self, lane: LaneId) -> Option<Turn> {
        let at = self.waiting.iter().position(|(_, waiting)| *waiting == lane)?;
        let (place, lane) = self.waiting.remove(at)?;
        // Its turn is taken out of the order, so it does not move the places of the others.
        Some(Turn { lane, place: place.min(self.last) })
    }

    /// The lane starts a batch.
    pub(crate) fn take(&mut self, turn: Turn) {
        self.last = self.last.max(turn.place);
    }

    /// A lane no longer waits.
    pub(crate) fn remove(&mut self, lane: LaneId) {
        self.waiting.retain(|(_, waiting)| *waiting != lane);
    }

    /// The lanes, the next one first.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = LaneId> {
        self.waiting.iter().map(|(_, lane)| *lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(lane: usize) -> LaneId {
        LaneId { table: 0, lane }
    }

    /// The lanes of the next turns when lanes with these weights always have batches.
    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let mut turns = Turns::default();
        weights.iter().enumerate().for_each(|(number, weight)| turns.wait(lane(number), *weight));
        let mut taken = Vec::new();
        for _ in 0..count {
            let turn = turns.next().unwrap();
            turns.take(turn);
            taken.push(turn.lane.lane);
            turns.wait(turn.lane, weights[turn.lane.lane]);
        }
        taken
    }

    #[test]
    fn lanes_have_as_many_turns_as_their_weights_say() {
        let check = |weights: &[u32], expected: &[usize]| {
            assert_eq!(turns(weights, expected.len()), expected, "{weights:?}");
        };
        check(&[1, 1, 1], &[0, 1, 2, 0, 1, 2]);
        check(&[5, 5], &[0, 1, 0, 1]);
        check(&[1, 4], &[1, 1, 1, 0, 1, 1, 1, 1, 0, 1]);
        for weights in [&[3, 1][..], &[2, 3, 1], &[7, 5, 1, 1], &[100, 1], &[16, 13, 1]] {
            let all: u32 = weights.iter().sum();
            let taken = turns(weights, 10 * all as usize);
            for (number, weight) in weights.iter().enumerate() {
                let count = taken.iter().filter(|lane| **lane == number).count() as u32;
                assert!(count.abs_diff(10 * weight) <= 2, "{weights:?}: lane {number} had {count} turns");
            }
        }
    }

    #[test]
    fn with_equal_weights_the_lane_that_has_waited_longest_is_next() {
        let mut turns = Turns::default();
        for number in 0..50 {
            turns.wait(lane(number), 1);
            if number % 3 == 0 {
                let turn = turns.next().unwrap();
                turns.take(turn);
                assert_eq!(turn.lane, lane(number / 3));
            }
        }
        assert!(turns.lanes().eq((17..50).map(lane)));
        turns.remove(lane(17));
        assert_eq!(turns.next().map(|turn| turn.lane), Some(lane(18)));
    }

    #[test]
    fn a_lane_has_no_advantage_from_a_time_in_which_it_did_not_wait() {
        let mut turns = Turns::default();
        turns.wait(lane(0), 1);
        for _ in 0..100 {
            let turn = turns.next().unwrap();
            turns.take(turn);
            turns.wait(lane(0), 1);
        }
        turns.wait(lane(1), 1);
        assert!(turns.lanes().eq([lane(0), lane(1)]));
    }

    #[test]
    fn a_turn_out_of_order_does_not_change_that_of_others() {
        let mut turns = Turns::default();
        (0..3).for_each(|number| turns.wait(lane(number), 1));
        let turn = turns.next_of(lane(2)).unwrap();
        turns.take(turn);
        turns.wait(lane(3), 2);
        assert!(turns.lanes().eq([lane(3), lane(0), lane(1)]));
        assert_eq!(turns.next_of(lane(2)), None);
    }
}
