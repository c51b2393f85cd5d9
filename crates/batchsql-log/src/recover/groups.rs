//! Owns which records that may not be on disk are written again: groups of blocks as a whole, or not at all.
//! Must not know files.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    mem,
    sync::Arc,
};

use super::Recoverer;
use crate::{
    active::{Entry, PendingBlock},
    model::Stream,
};

/// What the segments that were read before have of these records: newer ones.
#[derive(Debug, Default)]
struct Newer {
    streams: BTreeSet<Stream>,
    keys: HashSet<Arc<[u8]>>,
}

impl Recoverer<'_> {
    /// Chooses what is written again. If a segment was being written again when the machine stopped, the segment before has
    /// the same rows, and perhaps more of them. Where both have rows of a sequence, those of the newer segment count: the
    /// others were given back to their caller.
    pub(super) fn merge_uncertain(&mut self) {
        let mut newer = Newer::default();
        for entries in mem::take(&mut self.uncertain).into_iter().rev() {
            let mut here = Newer::default();
            let mut group = Vec::new();
            for entry in entries {
                match entry {
                    Entry::Block(block) => {
                        let is_last = block.rest == 0;
                        group.push(block);
                        if is_last {
                            self.merge_group(mem::take(&mut group), &mut newer, &mut here);
                        }
                        continue;
                    }
                    Entry::Settled(ref settled) => {
                        for (stream, ranges) in settled {
                            let state = self.streams.entry(*stream).or_default();
                            state.next = state.next.max(ranges.last() + 1);
                        }
                    }
                    Entry::Moved(_) => {}
                }
                self.pending.push(entry);
            }
            // The segment ends within a group, which was never acknowledged, or is whole in an older segment.
            self.recovery.torn_bytes += group.iter().map(PendingBlock::size).sum::<u64>();
            newer.streams.append(&mut here.streams);
            newer.keys.extend(here.keys);
        }
    }

    fn merge_group(&mut self, group: Vec<PendingBlock>, newer: &mut Newer, here: &mut Newer) {
        let streams: BTreeSet<Stream> = group.iter().map(|pending| pending.block.stream()).collect();
        here.streams.extend(&streams);
        let next = self.next_after(&group, newer);
        // Its caller may have sent it again after it was given back, to other partitions.
        let is_there = group.iter().flat_map(|pending| &pending.keys).any(|key| newer.keys.contains(&key.key));
        match next.filter(|_| !is_there) {
            Some(next) => {
                for (stream, next) in next {
                    self.streams.entry(stream).or_default().next = next;
                }
                self.recovery.blocks += group.len() as u64;
                here.keys.extend(group.iter().flat_map(|pending| &pending.keys).map(|key| Arc::clone(&key.key)));
                self.pending.extend(group.into_iter().map(Entry::Block));
            }
            // What follows it in these streams was given back with it.
            None if streams.len() > 1 || is_there => newer.streams.extend(streams),
            None => {}
        }
    }

    /// The next sequences behind a group; `None` if one of its blocks does not continue its stream.
    fn next_after(&self, group: &[PendingBlock], newer: &Newer) -> Option<BTreeMap<Stream, u64>> {
        let mut next_of = BTreeMap::new();
        for pending in group {
            let stream = pending.block.stream();
            let next = next_of.entry(stream).or_insert_with(|| {
                let placed = self.catalog.streams.get(&stream).map_or(0, |view| view.last_placed());
                let state = self.streams.get(&stream);
                let (next, durable) = state.map_or((1, 1), |state| (state.next, state.durable_next));
                next.max(durable).max(placed + 1)
            });
            // Behind lost rows there is a hole. Behind rows of a newer segment there must be none.
            if pending.first < *next || (pending.first > *next && newer.streams.contains(&stream)) {
                return None;
            }
            *next = pending.appended().last + 1;
        }
        Some(next_of)
    }
}
