//! Owns how far the source of a partition is, as its worker sees it.
//! Must not know messages or positions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tallies::Tallies;

/// How far a partition is.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// All messages below this one have ended.
    settled: AtomicU64,
    /// Another worker has the partition.
    is_lost: AtomicBool,
    /// The last owner has not given the partition away.
    is_taken_over: AtomicBool,
    counted: Mutex<Counted>,
    /// Of its table.
    tallies: Arc<Tallies>,
}

/// Messages of the consumer that the partition is read with.
///
/// Worked example, exactly once: a consumer was opened while 2 messages were held, so `ended` is -2. It has delivered 5 messages
/// and has 10 more; of all of these 3 have ended since. So 10 + 5 - (3 - 2) = 14 messages have not ended.
#[derive(Debug, Default)]
struct Counted {
    consumer: Consumer,
    /// Messages that have ended since it was opened, minus those that were held then.
    ended: i64,
    /// Messages that were read and have not ended.
    held: u64,
    /// Messages that are not here yet, as of the last one that came or of the last question.
    pending: u64,
    /// Messages that any worker holds, as the server counts them. Exactly once, zero.
    delivered: u64,
}

/// The consumer that a partition is read with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Consumer {
    /// There was none yet.
    #[default]
    None,
    Open(Arc<str>),
    /// The server has removed it, as nobody has read from it. There is another one when the partition goes on.
    Gone,
}

/// Messages of a partition that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Those that were not delivered yet.
    pub(crate) pending: u64,
    /// All of them.
    pub(crate) unsettled: u64,
}

/// Who had a partition before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nobody, or it was given away.
    Free,
    /// An owner whose lease has ended.
    Expired,
}

impl Reached {
    pub(crate) fn new(tallies: Arc<Tallies>, before: Before) -> Self {
        Self { tallies, is_taken_over: AtomicBool::new(before == Before::Expired), ..Self::default() }
    }

    pub(crate) fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Messages below this one may be removed.
    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// All messages up to this one have ended, among them this number that were held.
    pub(crate) fn settle(&self, message: u64, ended: u64) {
        self.settled.fetch_max(message, Ordering::AcqRel);
        let mut counted = self.counted();
        counted.held = counted.held.saturating_sub(ended);
        counted.ended += i64::try_from(ended).unwrap_or(i64::MAX);
    }

    /// The partition is read with this consumer from now on.
    pub(crate) fn opens(&self, consumer: &str) {
        let mut counted = self.counted();
        counted.consumer = Consumer::Open(consumer.into());
        counted.ended = -i64::try_from(counted.held).unwrap_or(i64::MAX);
    }

    /// A message has come, and this number is behind it.
    pub(crate) fn comes(&self, pending: u64) {
        self.counted().pending = pending;
    }

    /// The message that has come is held until it has ended.
    pub(crate) fn holds(&self) {
        self.counted().held += 1;
    }

    /// The message that has come needs nothing.
    pub(crate) fn passes(&self) {
        self.counted().ended += 1;
    }

    /// The consumer that it is read with.
    pub(crate) fn consumer(&self) -> Consumer {
        self.counted().consumer.clone()
    }

    /// The server does not have this consumer any more.
    pub(crate) fn has_lost(&self, consumer: &str) {
        let mut counted = self.counted();
        if matches!(&counted.consumer, Consumer::Open(open) if **open == *consumer) {
            counted.consumer = Consumer::Gone;
        }
    }

    /// The server has said about a consumer that acknowledges nothing how many messages it has delivered, and how many it has.
    pub(crate) fn is_told(&self, delivered: u64, pending: u64) {
        let mut counted = self.counted();
        let ended = counted.ended.saturating_add(i64::try_from(counted.held).unwrap_or(i64::MAX));
        counted.pending = pending.saturating_add(delivered).saturating_add_signed(ended.saturating_neg());
    }

    /// The server has said how many messages workers have, and how many no worker has.
    pub(crate) fn is_told_by_acks(&self, delivered: u64, pending: u64) {
        let mut counted = self.counted();
        (counted.delivered, counted.pending) = (delivered, pending);
    }

    /// This number of messages was added, and the consumer is gone.
    pub(crate) fn grows(&self, added: u64) {
        self.counted().pending += added;
    }

    pub(crate) fn waiting(&self) -> Waiting {
        let Counted { held, pending, delivered, .. } = *self.counted();
        Waiting { pending, unsettled: pending.saturating_add(held.max(delivered)) }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// Another worker has the partition. `is_held`: this one had it until now.
    pub(crate) fn lose(&self, is_held: bool) {
        if !self.is_lost.swap(true, Ordering::AcqRel) && is_held {
            self.tallies.fences.add_one();
        }
    }

    /// The partition was claimed.
    pub(crate) fn is_claimed(&self) {
        if self.is_taken_over.swap(false, Ordering::AcqRel) {
            self.tallies.takeovers.add_one();
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_have_not_ended_are_counted_once() {
        let reached = Reached::default();
        let check = |pending, unsettled| assert_eq!(reached.waiting(), Waiting { pending, unsettled });
        reached.opens("one");
        for pending in [8, 7, 6] {
            reached.comes(pending);
            reached.holds();
        }
        check(6, 9);
        reached.settle(1, 1);
        check(6, 8);
        // Another consumer begins behind the two that are held: it has delivered 5 and has 10 more. Two of the five have come.
        reached.opens("two");
        reached.comes(13);
        reached.holds();
        reached.comes(12);
        reached.passes();
        reached.is_told(5, 10);
        check(13, 16);
        reached.settle(9, 3);
        check(13, 13);
        reached.is_told(5, 10);
        check(13, 13);
        reached.grows(4);
        check(17, 17);
    }

    #[test]
    fn messages_of_other_workers_count_too() {
        let reached = Reached::default();
        reached.is_told_by_acks(1, 7);
        assert_eq!(reached.waiting(), Waiting { pending: 7, unsettled: 8 });
        // Its own message is the one that the server means.
        reached.comes(6);
        reached.holds();
        assert_eq!(reached.waiting(), Waiting { pending: 6, unsettled: 7 });
    }

    #[test]
    fn a_partition_is_fenced_and_taken_over_once() {
        let tallies = Arc::new(Tallies::default());
        let reached = Reached::new(Arc::clone(&tallies), Before::Expired);
        (0..2).for_each(|_| reached.is_claimed());
        (0..2).for_each(|_| reached.lose(true));
        assert_eq!((tallies.takeovers.get(), tallies.fences.get()), (1, 1));
        let never_had = Reached::new(Arc::clone(&tallies), Before::Free);
        never_had.is_claimed();
        never_had.lose(false);
        assert_eq!((tallies.takeovers.get(), tallies.fences.get()), (1, 1));
    }
}
