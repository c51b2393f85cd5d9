//! Owns `Ranges`: a set of sequences, as ranges that neither touch nor overlap.
//! Must not know blocks, tables or files.

use std::{collections::BTreeMap, ops::RangeInclusive};

/// First and last sequence of each range, both included. Sequences start at 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `first..=last`, and merges it with what it touches. An empty range changes nothing.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        while let Some((&start, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.0.remove(&start);
            first = first.min(start);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    pub(crate) fn extend(&mut self, other: &Ranges) {
        other.iter().for_each(|(first, last)| self.insert(first, last));
    }

    pub(crate) fn contains(&self, first: u64, last: u64) -> bool {
        self.around(first).is_some_and(|(_, end)| end >= last)
    }

    /// The end of the range that starts at 1; 0 without such a range.
    pub(crate) fn up_to(&self) -> u64 {
        self.0.get(&1).copied().unwrap_or(0)
    }

    /// The highest sequence of the set; 0 if it is empty.
    pub(crate) fn last(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, &last)| last)
    }

    /// The lowest sequence from `from` on that is not in the set.
    pub(crate) fn first_missing(&self, from: u64) -> u64 {
        self.around(from).map_or(from, |(_, end)| end.saturating_add(1))
    }

    /// The lowest sequence from `from` on that is in the set.
    pub(crate) fn first_present(&self, from: u64) -> Option<u64> {
        self.around(from).map(|_| from).or_else(|| self.0.range(from..).next().map(|(&first, _)| first))
    }

    /// How many sequences are in the set.
    pub(crate) fn count(&self) -> u64 {
        self.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// What is not in the set, from `first` to `last`.
    pub(crate) fn holes(&self, first: u64, last: u64) -> Ranges {
        let mut holes = Ranges::default();
        let mut from = self.first_missing(first);
        while from <= last {
            let to = self.first_present(from).map_or(last, |next| (next - 1).min(last));
            holes.insert(from, to);
            from = self.first_missing(to.saturating_add(1));
        }
        holes
    }

    /// What is in the set, from `first` to `last`, in order.
    pub(crate) fn within(&self, first: u64, last: u64) -> Vec<RangeInclusive<u64>> {
        let (mut from, mut within) = (first, Vec::new());
        while let Some(start) = self.first_present(from).filter(|start| *start <= last) {
            let end = (self.first_missing(start) - 1).min(last);
            within.push(start..=end);
            from = end + 1;
        }
        within
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&first, &last)| (first, last))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn around(&self, sequence: u64) -> Option<(u64, u64)> {
        let (&first, &last) = self.0.range(..=sequence).next_back()?;
        (last >= sequence).then_some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(inserts in prop::collection::vec((1_u64..40, 0_u64..8), 0..20)) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for (first, length) in inserts {
                ranges.insert(first, first + length);
                set.extend(first..=first + length);
                let listed: Vec<u64> = ranges.iter().flat_map(|(first, last)| first..=last).collect();
                prop_assert_eq!(&listed, &set.iter().copied().collect::<Vec<_>>());
                let apart = ranges.iter().zip(ranges.iter().skip(1)).all(|((_, end), (start, _))| end + 1 < start);
                prop_assert!(apart, "ranges touch: {:?}", ranges);
            }
            for from in 1..50 {
                let missing = (from..).find(|n| !set.contains(n)).expect("the set is finite");
                prop_assert_eq!(ranges.first_missing(from), missing);
                prop_assert_eq!(ranges.first_present(from), (from..50).find(|n| set.contains(n)));
                prop_assert_eq!(ranges.contains(from, from + 3), (from..=from + 3).all(|n| set.contains(&n)));
            }
            let holes: Vec<u64> = ranges.holes(3, 30).iter().flat_map(|(first, last)| first..=last).collect();
            prop_assert_eq!(holes, (3..=30).filter(|n| !set.contains(n)).collect::<Vec<_>>());
            prop_assert_eq!(ranges.count(), set.len() as u64);
            let within: Vec<u64> = ranges.within(3, 30).into_iter().flatten().collect();
            prop_assert_eq!(within, (3..=30).filter(|n| set.contains(n)).collect::<Vec<_>>());
            prop_assert_eq!(ranges.up_to(), (1..).take_while(|n| set.contains(n)).last().unwrap_or(0));
            prop_assert_eq!(ranges.last(), set.last().copied().unwrap_or(0));
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut ranges = Ranges::default();
        ranges.insert(u64::MAX, u64::MAX);
        ranges.insert(1, u64::MAX - 1);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(1, u64::MAX)]);
        assert_eq!(ranges.first_missing(5), u64::MAX);
        ranges.insert(3, 2);
        assert_eq!(ranges.len(), 1);
    }
}
