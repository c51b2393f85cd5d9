//! Owns the end of a start: what is missing, and where the writer continues.
//! Must not know records.

use std::{collections::BTreeSet, io};

use super::{Recovered, Recoverer};
use crate::{
    active::Entry,
    engine::Start,
    format::{names, snapshot::Settled},
    model::{FileKey, Stream, TableId},
    quarantine,
    recovery::{Damage, Gap, PartitionState},
};

impl Recoverer<'_> {
    pub(super) fn finish(mut self, next_number: u64) -> io::Result<Recovered> {
        let mut pending_settled = Settled::new();
        for entry in &self.pending {
            if let Entry::Settled(settled) = entry {
                settled.iter().for_each(|(of, ranges)| pending_settled.entry(*of).or_default().extend(ranges));
            }
        }
        let of_records = self.streams.keys().chain(pending_settled.keys());
        let streams: BTreeSet<Stream> = self.catalog.streams.keys().chain(of_records).copied().collect();
        for stream in streams {
            self.catalog.tables.reserve(stream.table);
            let state = self.streams.entry(stream).or_default();
            let view = self.catalog.streams.entry(stream).or_default();
            let end = view.last_placed().max(state.durable_settled.last()) + 1;
            state.durable_next = state.durable_next.max(end);
            state.next = state.next.max(state.durable_next);
            view.end = state.durable_next;
            view.settled = state.durable_settled.clone();
            if let Some(pending) = pending_settled.get(&stream) {
                // Rows may have been removed since.
                view.settled.extend(pending);
                state.next = state.next.max(pending.last() + 1);
            }
            let table_name = self.catalog.tables.get(stream.table).map(|name| name.to_string()).unwrap_or_default();
            let (table, partition) = (TableId(stream.table), stream.partition);
            let mut accounted = self.present.remove(&stream).unwrap_or_default();
            accounted.extend(&view.settled);
            let mut lost = accounted.holes(1, state.durable_next - 1);
            // A clean close knows of holes inside a segment.
            for (first, last) in view.lost.iter() {
                lost.extend(&view.settled.holes(first, last));
            }
            self.recovery.gaps.extend(lost.iter().map(|(first, last)| Gap { table, partition, first, last }));
            view.lost = lost;
            let (settled_up_to, next) = (view.settled.up_to(), state.next);
            let unsettled = (next - 1).saturating_sub(view.settled.count());
            let found = PartitionState { table, table_name, partition, settled_up_to, unsettled, next };
            self.recovery.partitions.push(found);
        }
        for moved in &self.moved {
            let Some(stream) = moved.key.side else { continue };
            let is_there = self.catalog.files.contains_key(&moved.key)
                || self.catalog.files.contains_key(&FileKey::main(moved.key.number));
            let is_settled =
                self.catalog.streams.get(&stream).is_some_and(|view| view.settled.contains(moved.first, moved.last));
            if !is_there && !is_settled {
                let (table, partition) = (TableId(stream.table), stream.partition);
                self.recovery.damages.push(Damage {
                    file: names::segment(moved.key),
                    offset: 0,
                    length: 0,
                    kept_in: None,
                    was_known: false,
                    rows: Some(Gap { table, partition, first: moved.first, last: moved.last }),
                });
            }
        }
        let start = Start {
            streams: self.streams,
            next_serial: self.next_serial,
            next_number,
            // What is damaged may be known from another segment.
            newest_synced: self.newest_synced.filter(|_| self.recovery.damages.is_empty()),
            lengths: self.lengths,
            quarantine_bytes: quarantine::bytes(self.file_system, self.folder)?,
            pending: self.pending,
            tails: self.tails,
            is_changed: !self.recovery.is_clean,
        };
        Ok(Recovered { catalog: self.catalog, keys: self.keys, start, recovery: self.recovery })
    }
}
