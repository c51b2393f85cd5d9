//! Owns what records mean at a start, and which of them are written again.
//! Must not know files, except to keep damaged bytes.

use super::{Mode, Recoverer, Segment};
use crate::{
    active::{Entry, PendingBlock},
    catalog::Added,
    format::{
        keys::{self, KeyRecord},
        record::{Header, Kind},
        snapshot::{CloseState, Moved, Snapshot, decode_settled},
    },
    fs::File,
    model::{Block, FileKey, SchemaId, Stream, TableId},
    quarantine,
    recovery::{Damage, Gap},
};

impl Recoverer<'_> {
    /// What a record says. `None` if its payload makes no sense.
    pub(super) fn apply(
        &mut self,
        (key, version): (FileKey, u32),
        header: &Header,
        offset: u64,
        payload: &[u8],
    ) -> Option<()> {
        match header.kind {
            Kind::Snapshot => self.apply_snapshot(Snapshot::decode(payload)?),
            Kind::Close => self.apply_close(CloseState::decode(payload, version)?),
            Kind::Table => self.catalog.tables.define(header.table, str::from_utf8(payload).ok()?.into()),
            Kind::Schema => self.catalog.schemas.define(header.schema, payload.into()),
            Kind::Settled => {
                for (stream, ranges) in decode_settled(payload)? {
                    let state = self.streams.entry(stream).or_default();
                    state.durable_settled.extend(&ranges);
                }
            }
            Kind::Moved => self.moved.push(Moved::decode(payload)?),
            Kind::Keys => self.add_keys(keys::decode(payload)?),
            Kind::Block => {
                let last = header.last()?;
                self.catalog.schemas.reserve(header.schema);
                let stream = Stream { table: header.table, partition: header.partition };
                let view = self.catalog.streams.entry(stream).or_default();
                if header.first <= view.last_placed() {
                    // Rows that are there already, from an earlier segment.
                    return Some(());
                }
                let added = Added { first: header.first, last, offset, bytes: header.size(), time: header.time };
                self.catalog.add(key, stream, added);
                self.present.entry(stream).or_default().insert(header.first, last);
                self.recovery.blocks += 1;
            }
        }
        Some(())
    }

    /// What was written after the last known sync, and perhaps acknowledged, may be in the memory of the operating system
    /// only, where a failed sync may have marked it as clean: it is written again, to a new segment.
    pub(super) fn write_again(&mut self, version: u32, header: &Header, payload: &[u8]) -> Option<()> {
        match header.kind {
            // Of what is on disk.
            Kind::Snapshot => self.apply_snapshot(Snapshot::decode(payload)?),
            Kind::Table => self.catalog.tables.define(header.table, str::from_utf8(payload).ok()?.into()),
            Kind::Schema => self.catalog.schemas.define(header.schema, payload.into()),
            Kind::Settled => self.uncertain.last_mut()?.push(Entry::Settled(decode_settled(payload)?)),
            Kind::Moved => self.uncertain.last_mut()?.push(Entry::Moved(Moved::decode(payload)?)),
            Kind::Close => self.apply_close(CloseState::decode(payload, version)?),
            // At the start of a segment, those that are on disk.
            Kind::Keys if header.rest == 0 => self.add_keys(keys::decode(payload)?),
            Kind::Keys => self.group_keys = Some((header.rest, keys::decode(payload)?)),
            Kind::Block => {
                header.last()?;
                self.catalog.schemas.reserve(header.schema);
                let block = Block {
                    table: TableId(header.table),
                    partition: header.partition,
                    schema: SchemaId(header.schema),
                    count: header.count,
                    bytes: payload.to_vec(),
                };
                let (first, time, rest) = (header.first, header.time, header.rest);
                let keys = self.group_keys.take().filter(|(blocks, _)| rest.checked_add(1) == Some(*blocks));
                let keys = keys.map(|(_, keys)| keys).unwrap_or_default();
                let pending = PendingBlock { block, first, time, rest, keys, ticket: None, offset: 0 };
                self.uncertain.last_mut()?.push(Entry::Block(pending));
            }
        }
        Some(())
    }

    pub(super) fn add_keys(&mut self, keys: Vec<KeyRecord>) {
        keys.into_iter().for_each(|key| self.keys.insert(key, self.now));
    }

    fn apply_close(&mut self, state: CloseState) {
        self.apply_snapshot(state.snapshot);
        self.add_keys(state.keys);
    }

    pub(super) fn apply_snapshot(&mut self, snapshot: Snapshot) {
        snapshot.tables.into_iter().for_each(|(id, name)| self.catalog.tables.define(id, name));
        for of in snapshot.streams {
            let state = self.streams.entry(of.stream).or_default();
            state.durable_next = state.durable_next.max(of.next);
            state.durable_settled.extend(&of.settled);
        }
    }

    pub(super) fn damaged(
        &mut self,
        (segment, file): (&Segment, &dyn File),
        offset: u64,
        length: u64,
        header: Option<Header>,
    ) {
        let rows = header.filter(|header| header.kind == Kind::Block).and_then(|header| {
            let (first, last) = (header.first, header.last()?);
            Some(Gap { table: TableId(header.table), partition: header.partition, first, last })
        });
        if let Some(Gap { table, partition, last, .. }) = rows {
            // Their sequences are never given again.
            let state = self.streams.entry(Stream { table: table.0, partition }).or_default();
            state.durable_next = state.durable_next.max(last + 1);
        }
        let kept = match self.mode {
            Mode::Look => None,
            Mode::Repair => quarantine::keep(self.file_system, self.folder, (&segment.name, file), offset, length).ok(),
        };
        self.recovery.damages.push(Damage {
            file: segment.name.clone(),
            offset,
            length,
            was_known: kept.as_ref().is_some_and(|kept| kept.was_known),
            kept_in: kept.map(|kept| kept.path),
            rows,
        });
    }
}
