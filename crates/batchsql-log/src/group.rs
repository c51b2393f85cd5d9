//! Owns when the writer thread writes what waits: pure policy, without a clock.
//! Must not know blocks and files.

use std::time::Duration;

/// What waits for the writer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) blocks: usize,
    pub(crate) bytes: u64,
    /// How long the first block has waited.
    pub(crate) blocks_for: Duration,
    /// How long the first settled range has waited, if there is one.
    pub(crate) settled_for: Option<Duration>,
    /// Somebody waits for a sync, for space, or for the end.
    pub(crate) is_urgent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) bytes: u64,
    /// How long a block may wait for others. Zero if a write costs no sync.
    pub(crate) delay: Duration,
    pub(crate) settle_delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Write,
    /// Until something else arrives, or at most this long.
    Wait(Option<Duration>),
}

/// A lone submitter never waits for a timer: `previous` is the number of blocks of the last group, and as soon as as many
/// wait again, all who were woken by it are back.
pub(crate) fn step(waiting: &Waiting, previous: usize, limits: &Limits) -> Step {
    if waiting.is_urgent {
        return Step::Write;
    }
    if waiting.blocks == 0 {
        return match waiting.settled_for.map(|waited| limits.settle_delay.checked_sub(waited)) {
            None => Step::Wait(None),
            Some(Some(left)) if !left.is_zero() => Step::Wait(Some(left)),
            Some(_) => Step::Write,
        };
    }
    let all_are_back = waiting.blocks >= previous;
    match limits.delay.checked_sub(waiting.blocks_for) {
        Some(left) if !left.is_zero() && !all_are_back && waiting.bytes < limits.bytes => Step::Wait(Some(left)),
        _ => Step::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn when_a_group_is_written() {
        let limits = Limits { bytes: 1_000, delay: ms(2), settle_delay: ms(100) };
        let check = |waiting: Waiting, previous: usize, expected: Step| {
            assert_eq!(step(&waiting, previous, &limits), expected, "{waiting:?} after {previous}");
        };
        let blocks = |blocks, bytes, waited| Waiting { blocks, bytes, blocks_for: waited, ..Waiting::default() };
        check(Waiting::default(), 5, Step::Wait(None));
        // A lone submitter.
        check(blocks(1, 10, ms(0)), 0, Step::Write);
        check(blocks(1, 10, ms(0)), 1, Step::Write);
        // Under load: the others, 1 MiB, or 2 ms.
        check(blocks(3, 30, ms(0)), 8, Step::Wait(Some(ms(2))));
        check(blocks(3, 30, ms(1)), 8, Step::Wait(Some(ms(1))));
        check(blocks(3, 30, ms(2)), 8, Step::Write);
        check(blocks(8, 80, ms(0)), 8, Step::Write);
        check(blocks(3, 1_000, ms(0)), 8, Step::Write);
        // Settled ranges wait for a block, for a limited time.
        let settled = |waited| Waiting { settled_for: Some(waited), ..Waiting::default() };
        check(settled(ms(10)), 1, Step::Wait(Some(ms(90))));
        check(settled(ms(100)), 1, Step::Write);
        check(Waiting { is_urgent: true, ..Waiting::default() }, 1, Step::Write);
    }

    #[test]
    fn without_a_delay_nothing_waits() {
        let limits = Limits { bytes: 1_000, delay: ms(0), settle_delay: ms(100) };
        let waiting = Waiting { blocks: 1, bytes: 1, ..Waiting::default() };
        assert_eq!(step(&waiting, 100, &limits), Step::Write);
    }
}
