//! Owns the payloads of the records that describe the log itself: snapshots, settled ranges, moves and the clean close.
//! Must not know headers and files.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    codec::{Decoder, put_length, put_slice, put_u32, put_u64},
    keys::{self, KeyRecord},
};
use crate::{
    model::{FileKey, Stream},
    ranges::Ranges,
};

/// The state at the start of a segment, so that the log does not need the segments before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) tables: Vec<(u32, Arc<str>)>,
    pub(crate) streams: Vec<StreamSnapshot>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamSnapshot {
    pub(crate) stream: Stream,
    /// The sequence of the next row.
    pub(crate) next: u64,
    pub(crate) settled: Ranges,
}

/// Which rows of a stream are in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Where the first block is.
    pub(crate) offset: u64,
    pub(crate) blocks: u64,
    /// Bytes of the records.
    pub(crate) bytes: u64,
    /// When the first block was written, in milliseconds since 1970.
    pub(crate) oldest: u64,
}

/// What a clean close knows about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSnapshot {
    pub(crate) key: FileKey,
    pub(crate) length: u64,
    pub(crate) newest: u64,
    pub(crate) places: Vec<(Stream, Place)>,
}

/// Everything that the next start would otherwise have to read the segments for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CloseState {
    pub(crate) snapshot: Snapshot,
    pub(crate) schemas: Vec<(u32, Arc<[u8]>)>,
    pub(crate) files: Vec<FileSnapshot>,
    /// Rows that were found missing.
    pub(crate) lost: Settled,
    /// Since version 2.
    pub(crate) keys: Vec<KeyRecord>,
}

/// Rows of one stream that are in a side segment now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) key: FileKey,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

pub(crate) type Settled = BTreeMap<Stream, Ranges>;

impl Snapshot {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_length(&mut out, self.tables.len());
        for (id, name) in &self.tables {
            put_u32(&mut out, *id);
            put_slice(&mut out, name.as_bytes());
        }
        put_length(&mut out, self.streams.len());
        for StreamSnapshot { stream, next, settled } in &self.streams {
            put_stream(&mut out, *stream);
            put_u64(&mut out, *next);
            put_ranges(&mut out, settled);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let snapshot = Self::read(&mut decoder)?;
        decoder.is_empty().then_some(snapshot)
    }

    fn read(decoder: &mut Decoder<'_>) -> Option<Self> {
        let tables = decoder.list(8, |d| Some((d.u32()?, str::from_utf8(d.slice()?).ok()?.into())))?;
        let streams = decoder.list(20, |d| {
            let stream = stream(d)?;
            Some(StreamSnapshot { stream, next: d.u64()?, settled: ranges(d)? })
        })?;
        Some(Snapshot { tables, streams })
    }
}

impl CloseState {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.snapshot.encode();
        put_length(&mut out, self.schemas.len());
        for (id, bytes) in &self.schemas {
            put_u32(&mut out, *id);
            put_slice(&mut out, bytes);
        }
        put_length(&mut out, self.files.len());
        for FileSnapshot { key, length, newest, places } in &self.files {
            put_key(&mut out, *key);
            put_u64(&mut out, *length);
            put_u64(&mut out, *newest);
            put_length(&mut out, places.len());
            for (stream, Place { first, last, offset, blocks, bytes, oldest }) in places {
                put_stream(&mut out, *stream);
                [first, last, offset, blocks, bytes, oldest].into_iter().for_each(|value| put_u64(&mut out, *value));
            }
        }
        put_settled(&mut out, &self.lost);
        keys::put(&mut out, &self.keys);
        out
    }

    /// The state may be followed by padding and the mark of the end. `version` is that of its segment.
    pub(crate) fn decode(bytes: &[u8], version: u32) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let snapshot = Snapshot::read(&mut decoder)?;
        let schemas = decoder.list(8, |d| Some((d.u32()?, d.slice()?.into())))?;
        let files = decoder.list(33, |d| {
            let (key, length, newest) = (key(d)?, d.u64()?, d.u64()?);
            let places = d.list(56, |d| Some((stream(d)?, place(d)?)))?;
            Some(FileSnapshot { key, length, newest, places })
        })?;
        let lost = settled(&mut decoder)?;
        let keys = if version == 1 { Vec::new() } else { keys::read(&mut decoder)? };
        Some(CloseState { snapshot, schemas, files, lost, keys })
    }
}

pub(crate) fn encode_settled(settled: &Settled) -> Vec<u8> {
    let mut out = Vec::new();
    put_settled(&mut out, settled);
    out
}

fn put_settled(out: &mut Vec<u8>, settled: &Settled) {
    put_length(out, settled.len());
    for (stream, ranges) in settled {
        put_stream(out, *stream);
        put_ranges(out, ranges);
    }
}

fn settled(decoder: &mut Decoder<'_>) -> Option<Settled> {
    let settled = decoder.list(12, |d| Some((stream(d)?, ranges(d)?)))?;
    Some(settled.into_iter().collect())
}

pub(crate) fn decode_settled(bytes: &[u8]) -> Option<Settled> {
    let mut decoder = Decoder::new(bytes);
    let settled = settled(&mut decoder)?;
    decoder.is_empty().then_some(settled)
}

impl Moved {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_key(&mut out, self.key);
        put_u64(&mut out, self.first);
        put_u64(&mut out, self.last);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let moved = Moved { key: key(&mut decoder)?, first: decoder.u64()?, last: decoder.u64()? };
        (decoder.is_empty() && moved.first > 0 && moved.first <= moved.last).then_some(moved)
    }
}

fn put_stream(out: &mut Vec<u8>, Stream { table, partition }: Stream) {
    put_u32(out, table);
    put_u32(out, partition);
}

fn stream(decoder: &mut Decoder<'_>) -> Option<Stream> {
    Some(Stream { table: decoder.u32()?, partition: decoder.u32()? })
}

fn put_ranges(out: &mut Vec<u8>, ranges: &Ranges) {
    put_length(out, ranges.len());
    for (first, last) in ranges.iter() {
        put_u64(out, first);
        put_u64(out, last);
    }
}

fn ranges(decoder: &mut Decoder<'_>) -> Option<Ranges> {
    let mut ranges = Ranges::default();
    for (first, last) in decoder.list(16, |d| Some((d.u64()?, d.u64()?)))? {
        if first == 0 || first > last || last == u64::MAX {
            return None;
        }
        ranges.insert(first, last);
    }
    Some(ranges)
}

fn put_key(out: &mut Vec<u8>, key: FileKey) {
    put_u64(out, key.number);
    out.push(u8::from(key.side.is_some()));
    put_stream(out, key.side.unwrap_or(Stream { table: 0, partition: 0 }));
}

fn key(decoder: &mut Decoder<'_>) -> Option<FileKey> {
    let (number, is_side, stream) = (decoder.u64()?, decoder.u8()?, stream(decoder)?);
    Some(FileKey { number, side: (is_side != 0).then_some(stream) })
}

fn place(d: &mut Decoder<'_>) -> Option<Place> {
    let (first, last, offset) = (d.u64()?, d.u64()?, d.u64()?);
    let place = Place { first, last, offset, blocks: d.u64()?, bytes: d.u64()?, oldest: d.u64()? };
    (first > 0 && first <= last && last < u64::MAX).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CloseState {
        let stream = Stream { table: 1, partition: 2 };
        let mut settled = Ranges::default();
        settled.insert(1, 5);
        settled.insert(8, 9);
        let place = Place { first: 6, last: 12, offset: 64, blocks: 3, bytes: 500, oldest: 77 };
        CloseState {
            snapshot: Snapshot {
                tables: vec![(1, "events".into())],
                streams: vec![StreamSnapshot { stream, next: 13, settled }],
            },
            schemas: vec![(1, (*b"schema").into())],
            files: vec![
                FileSnapshot {
                    key: FileKey { number: 4, side: Some(stream) },
                    length: 9,
                    newest: 8,
                    places: vec![(stream, place)],
                },
                FileSnapshot { key: FileKey::main(5), length: 64, newest: 8, places: vec![] },
            ],
            lost: Settled::from([(stream, Ranges::default())]),
            keys: vec![KeyRecord { key: (*b"key").into(), value: (*b"value").into(), time: 7 }],
        }
    }

    #[test]
    fn payloads_come_back() {
        let state = sample();
        assert_eq!(CloseState::decode(&state.encode(), 2), Some(state.clone()));
        let before = CloseState { keys: Vec::new(), ..state.clone() };
        let bytes = before.encode();
        assert_eq!(CloseState::decode(&bytes[..bytes.len() - 4], 1), Some(before), "version 1 has no list of keys");
        assert_eq!(Snapshot::decode(&state.snapshot.encode()), Some(state.snapshot.clone()));
        let settled = Settled::from([(state.snapshot.streams[0].stream, state.snapshot.streams[0].settled.clone())]);
        assert_eq!(decode_settled(&encode_settled(&settled)), Some(settled));
        let moved = Moved { key: state.files[0].key, first: 1, last: 2 };
        assert_eq!(Moved::decode(&moved.encode()), Some(moved));
    }

    #[test]
    fn a_payload_that_ends_early_is_refused() {
        let bytes = sample().encode();
        (0..bytes.len()).for_each(|length| assert_eq!(CloseState::decode(&bytes[..length], 2), None, "{length}"));
    }
}
