//! Owns what a partition has read and not settled, and how many bytes it has.
//! Must not know rows, or the stream.

use std::collections::VecDeque;

/// How many bytes of messages are read and not settled, unless one message or part alone has more.
const MOST: usize = 8 << 20;

/// Messages and parts of messages, in their order.
#[derive(Debug, Default)]
pub(crate) struct Held {
    parts: VecDeque<HeldPart>,
    bytes: usize,
}

/// A message, or a part of one.
#[derive(Debug)]
pub(crate) struct HeldPart {
    pub(crate) message: u64,
    /// The sequence of its last row.
    pub(crate) last: u64,
    pub(crate) bytes: usize,
    /// Its message ends with it.
    pub(crate) is_end: bool,
}

impl Held {
    /// Whether nothing more is read now. `open`: bytes of a message that is open.
    pub(crate) fn is_full(&self, open: usize) -> bool {
        !self.parts.is_empty() && self.bytes + open >= MOST
    }

    pub(crate) fn push(&mut self, part: HeldPart) {
        self.bytes += part.bytes;
        self.parts.push_back(part);
    }

    /// All rows up to this one have ended. How many messages have ended with that.
    pub(crate) fn settle(&mut self, end: u64) -> u64 {
        let mut ended = 0;
        while self.parts.front().is_some_and(|part| part.last <= end) {
            if let Some(part) = self.parts.pop_front() {
                self.bytes -= part.bytes;
                ended += u64::from(part.is_end);
            }
        }
        ended
    }

    /// The first message that is held.
    pub(crate) fn front(&self) -> Option<u64> {
        self.parts.front().map(|part| part.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_with_its_last_part() {
        let mut held = Held::default();
        for (message, last, is_end) in [(1, 10, false), (1, 19, true), (2, 20, true), (3, 31, false)] {
            held.push(HeldPart { message, last, bytes: 3 << 20, is_end });
        }
        assert_eq!((held.settle(18), held.front(), held.is_full(0)), (0, Some(1), true));
        assert_eq!((held.settle(20), held.front(), held.is_full(0)), (2, Some(3), false));
        assert!(held.is_full(5 << 20));
        assert_eq!((held.settle(31), held.front()), (0, None));
        assert!(!held.is_full(64 << 20), "a message alone is always read");
    }
}
