//! Owns how the partitions of a source are shared out among workers: which ones a worker claims, and which it gives away.
//! Must not know clocks or databases: it gets what the table of positions says now, and each claim is decided there.
//!
//! A worker that has just come holds no partition, so nobody would give one away for it. It shows itself by a lease of a
//! seat: a row of the table of positions that stands for no partition, and is used again when its lease is over.
//!
//! Worked example, seven partitions, workers `a` and `b` with four and three of them, and `c` with a seat only:
//!
//! ```text
//! quotas   a 3 (7 / 3 = 2, and one is left: for the one that holds most), b 2, c 2
//! first    a releases one, b releases one; nothing is free for c
//! then     c claims both
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::write::position::{PartitionKey, StoredPosition};

/// What stands in place of an incarnation in the keys of seats.
const SEAT: &str = "(seats of workers)";

impl PartitionKey {
    /// A seat of a worker of a source. It has a row as a partition has, and is claimed, renewed and released as one.
    pub fn seat(source: impl Into<String>, number: u32) -> Self {
        Self::new(source, SEAT, "", number)
    }

    /// Whether it is a seat, not a partition.
    pub fn is_seat(&self) -> bool {
        self.incarnation == SEAT && self.table.is_empty()
    }
}

/// What a worker does next, see [`share_out`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Share {
    /// Claim these. Another worker may have been faster: then the next turn finds others.
    pub claim: Vec<PartitionKey>,
    /// End the steps of these, then release them.
    pub release: Vec<PartitionKey>,
}

/// Which partitions a worker claims and gives away. `partitions`: all that the source has, in an order that is the same for all
/// workers. `stored`: what the table of positions has about the source
/// ([`BatchSql::positions`](crate::BatchSql::positions)), with the seats.
///
/// The workers are those with a lease of a partition or of a seat, and `me`. If each of them does so in turn, they hold all
/// partitions, and none holds two more than another. When they do, nothing is moved.
///
/// ```
/// use batchsql_core::{PartitionKey, share_out};
///
/// let partitions: Vec<_> = (0..4).map(|number| PartitionKey::new("orders", "i", "t", number)).collect();
/// let share = share_out("me", &partitions, &[]);
/// assert_eq!((share.claim, share.release), (partitions, vec![]));
/// ```
pub fn share_out(me: &str, partitions: &[PartitionKey], stored: &[StoredPosition]) -> Share {
    let held: HashMap<&PartitionKey, &str> =
        stored.iter().filter_map(|stored| Some((&stored.key, stored.holder()?))).collect();
    let workers: BTreeSet<&str> = held.values().copied().chain([me]).collect();
    let owners: Vec<Option<&str>> = partitions.iter().map(|key| held.get(key).copied()).collect();
    let quotas = quotas(&workers, &owners);
    let mut free = partitions.iter().zip(&owners).filter(|(_, owner)| owner.is_none()).map(|(key, _)| key);
    // Each worker takes other free ones, so that they do not compete.
    let before: usize = quotas.range(..me).map(|(worker, quota)| quota.saturating_sub(count(&owners, worker))).sum();
    let quota = quotas.get(me).copied().unwrap_or_default();
    let mine = partitions.iter().zip(&owners).filter(|(_, owner)| **owner == Some(me)).map(|(key, _)| key);
    let missing = quota.saturating_sub(count(&owners, me));
    Share {
        claim: free.by_ref().skip(before).take(missing).cloned().collect(),
        release: mine.skip(quota).cloned().collect(),
    }
}

fn count(owners: &[Option<&str>], worker: &str) -> usize {
    owners.iter().filter(|owner| **owner == Some(worker)).count()
}

/// How many partitions each worker is to have: equal numbers, and what is left over goes to those that hold most already, so
/// that it need not move.
fn quotas<'a>(workers: &BTreeSet<&'a str>, owners: &[Option<&str>]) -> BTreeMap<&'a str, usize> {
    let mut by_held: Vec<&str> = workers.iter().copied().collect();
    by_held.sort_by_key(|worker| Reverse(count(owners, worker)));
    let (each, over) = (owners.len() / workers.len(), owners.len() % workers.len());
    by_held.into_iter().enumerate().map(|(place, worker)| (worker, each + usize::from(place < over))).collect()
}

/// The seats that a worker tries to claim, one after the other: its own, those whose lease is over, then new ones.
pub(crate) fn seats(
    source: &str,
    owner: &str,
    stored: &[StoredPosition],
) -> impl Iterator<Item = PartitionKey> + use<> {
    let known: Vec<&StoredPosition> = stored.iter().filter(|stored| stored.key.is_seat()).collect();
    let own = known.iter().filter(|seat| seat.holder() == Some(owner));
    let over = known.iter().filter(|seat| seat.holder().is_none());
    let used: Vec<PartitionKey> = own.chain(over).map(|seat| seat.key.clone()).collect();
    let next = known.iter().map(|seat| seat.key.partition.saturating_add(1)).max().unwrap_or(0);
    let source = source.to_owned();
    used.into_iter().chain((next..).map(move |number| PartitionKey::seat(&*source, number)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::write::position::Position;

    const NAMES: [&str; 7] = ["c", "a", "g", "b", "f", "d", "e"];

    fn key(partition: usize) -> PartitionKey {
        PartitionKey::new("s", "i", "t", u32::try_from(partition).unwrap())
    }

    fn stored(key: PartitionKey, owner: Option<&str>) -> StoredPosition {
        let position = Position { id: 0, epoch: 0, sequence: 0 };
        StoredPosition::new(key, position).owned(owner.map(str::to_owned), owner.map(|_| Duration::from_secs(9)))
    }

    /// The table of positions, as far as it matters here: who has the lease of each partition, and which workers have a seat.
    #[derive(Clone, Debug)]
    struct Table {
        owners: Vec<Option<usize>>,
        workers: Vec<usize>,
    }

    impl Table {
        fn view(&self) -> Vec<StoredPosition> {
            let held =
                self.owners.iter().enumerate().map(|(number, owner)| stored(key(number), owner.map(|at| NAMES[at])));
            let seat = |at: &usize| stored(PartitionKey::seat("s", u32::try_from(*at).unwrap()), Some(NAMES[*at]));
            held.chain(self.workers.iter().map(seat)).collect()
        }

        /// What a worker does with what it has seen, perhaps a while ago.
        fn act(&mut self, worker: usize, seen: &[StoredPosition]) -> Share {
            let partitions: Vec<_> = (0..self.owners.len()).map(key).collect();
            let share = share_out(NAMES[worker], &partitions, seen);
            for key in &share.release {
                let owner = &mut self.owners[key.partition as usize];
                if *owner == Some(worker) {
                    *owner = None;
                }
            }
            for key in &share.claim {
                self.owners[key.partition as usize].get_or_insert(worker);
            }
            share
        }

        fn is_shared_out(&self) -> bool {
            let held = |worker: &usize| self.owners.iter().filter(|owner| **owner == Some(*worker)).count();
            let counts: Vec<usize> = self.workers.iter().map(held).collect();
            self.owners.iter().all(Option::is_some) && counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1
        }
    }

    fn tables() -> impl Strategy<Value = Table> {
        let workers = proptest::sample::subsequence((0..NAMES.len()).collect::<Vec<_>>(), 1..=NAMES.len());
        (workers, 0..40_usize).prop_flat_map(|(workers, partitions)| {
            let owner = proptest::option::of(proptest::sample::select(workers.clone()));
            proptest::collection::vec(owner, partitions)
                .prop_map(move |owners| Table { owners, workers: workers.clone() })
        })
    }

    proptest! {
        /// All see the same, and act at once.
        #[test]
        fn workers_that_see_the_same_share_out_in_two_turns(table in tables()) {
            let mut table = table;
            for _ in 0..2 {
                let seen = table.view();
                for worker in table.workers.clone() {
                    table.act(worker, &seen);
                }
            }
            prop_assert!(table.is_shared_out(), "{table:?}");
            let seen = table.view();
            for worker in table.workers.clone() {
                prop_assert_eq!(table.act(worker, &seen), Share::default(), "nothing moves any more");
            }
        }

        /// Workers act in any order on what they saw a while ago; some end, and their leases with them.
        #[test]
        fn workers_share_out_whatever_happened_before(
            table in tables(),
            turns in proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>()), 0..60),
            end in any::<proptest::sample::Index>(),
        ) {
            let mut table = table;
            let mut seen = table.view();
            for (turn, (worker, looks)) in turns.iter().enumerate() {
                if turn == 20 && table.workers.len() > 1 {
                    let ended = table.workers.remove(end.index(table.workers.len()));
                    table.owners.iter_mut().filter(|owner| **owner == Some(ended)).for_each(|owner| *owner = None);
                }
                if *looks {
                    seen = table.view();
                }
                let worker = table.workers[worker.index(table.workers.len())];
                table.act(worker, &seen);
            }
            for _ in 0..3 {
                for worker in table.workers.clone() {
                    let seen = table.view();
                    table.act(worker, &seen);
                }
            }
            prop_assert!(table.is_shared_out(), "{table:?}");
        }
    }

    #[test]
    fn leases_that_are_over_and_other_incarnations_do_not_count() {
        let partitions: Vec<_> = (0..2).map(key).collect();
        let over = StoredPosition { lease: None, ..stored(key(0), Some("b")) };
        let old = stored(PartitionKey::new("s", "before", "t", 1), None);
        assert_eq!(share_out("a", &partitions, &[over, old]).claim, partitions);
    }

    #[test]
    fn a_worker_takes_its_own_seat_then_one_that_is_over_then_a_new_one() {
        let seat = |number| PartitionKey::seat("s", number);
        let numbers =
            |stored: &[StoredPosition]| seats("s", "a", stored).map(|key| key.partition).take(3).collect::<Vec<_>>();
        assert_eq!(numbers(&[]), [0, 1, 2]);
        assert_eq!(numbers(&[stored(key(7), Some("a")), stored(seat(0), Some("b"))]), [1, 2, 3]);
        let taken = [stored(seat(0), Some("b")), stored(seat(1), None), stored(seat(2), Some("a"))];
        assert_eq!(numbers(&taken), [2, 1, 3]);
        assert!(seat(1).is_seat() && !key(1).is_seat());
    }
}
