//! Owns what is known about tables, schemas, streams and files in memory: a few numbers per stream and segment, never per
//! block.
//! Must not know the bytes of files, and does no I/O.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

use crate::{
    format::snapshot::Place,
    model::{FileKey, Stream},
    ranges::Ranges,
};

/// What callers and readers see. Only the writer thread changes it, except for settled ranges.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) tables: Names<str>,
    pub(crate) schemas: Names<[u8]>,
    pub(crate) streams: BTreeMap<Stream, StreamView>,
    pub(crate) files: BTreeMap<FileKey, FileView>,
}

#[derive(Debug, Clone)]
pub(crate) struct StreamView {
    /// The sequence behind the last row that may be read.
    pub(crate) end: u64,
    /// Settled by the caller, perhaps not on disk yet.
    pub(crate) settled: Ranges,
    pub(crate) is_aside: bool,
    /// Rows from here on were in a segment that was given up, and are not in another one yet: they are not missing.
    pub(crate) rewritten_from: Option<u64>,
    /// Rows that were found missing, also if they were settled since.
    pub(crate) lost: Ranges,
    /// Where rows are, by the first sequence. Places do not overlap.
    places: BTreeMap<u64, (FileKey, Place)>,
}

impl Default for StreamView {
    fn default() -> Self {
        StreamView {
            end: 1,
            settled: Ranges::default(),
            is_aside: false,
            rewritten_from: None,
            lost: Ranges::default(),
            places: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FileView {
    /// Up to where it may be read.
    pub(crate) length: u64,
    /// When its last block was written, in milliseconds since 1970.
    pub(crate) newest: u64,
    /// The first sequence of each stream in it.
    pub(crate) streams: BTreeMap<Stream, u64>,
}

/// One block, for `Catalog::add`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) time: u64,
}

impl StreamView {
    /// The place of the first row from `sequence` on that is in a file.
    pub(crate) fn locate(&self, sequence: u64) -> Option<(FileKey, Place)> {
        let before = self.places.range(..=sequence).next_back().filter(|(_, (_, place))| place.last >= sequence);
        before.or_else(|| self.places.range(sequence..).next()).map(|(_, found)| *found)
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = &(FileKey, Place)> {
        self.places.values()
    }

    /// The place of the first row that is not settled.
    pub(crate) fn first_unsettled(&self) -> Option<&Place> {
        self.places().map(|(_, place)| place).find(|place| !self.settled.contains(place.first, place.last))
    }

    /// The last sequence that is in a file.
    pub(crate) fn last_placed(&self) -> u64 {
        self.places.last_key_value().map_or(0, |(_, (_, place))| place.last)
    }
}

impl Catalog {
    /// A block was written. Blocks of a stream come in the order of their sequences.
    pub(crate) fn add(&mut self, key: FileKey, stream: Stream, added: Added) {
        let Added { first, last, offset, bytes, time } = added;
        let file = self.files.entry(key).or_default();
        file.newest = file.newest.max(time);
        file.streams.entry(stream).or_insert(first);
        let view = self.streams.entry(stream).or_default();
        view.end = view.end.max(last + 1);
        // What is written again is published together.
        view.rewritten_from = None;
        match view.places.last_entry() {
            Some(mut place) if place.get().0 == key => {
                let place = &mut place.get_mut().1;
                place.last = last;
                place.blocks += 1;
                place.bytes += bytes;
            }
            _ => {
                view.places.insert(first, (key, Place { first, last, offset, blocks: 1, bytes, oldest: time }));
            }
        }
    }

    /// The streams of a file and where they are in it.
    pub(crate) fn places_of(&self, key: FileKey) -> Vec<(Stream, Place)> {
        let streams = self.files.get(&key).map(|file| file.streams.iter()).into_iter().flatten();
        let place = |(stream, first): (&Stream, &u64)| {
            let (_, place) = self.streams.get(stream)?.places.get(first)?;
            Some((*stream, *place))
        };
        streams.filter_map(place).collect()
    }

    /// Replaces all that is known about a file; without places it stays, as a file without blocks.
    pub(crate) fn set_places(&mut self, key: FileKey, places: &[(Stream, Place)]) {
        self.forget_places(key);
        let file = self.files.entry(key).or_default();
        for (stream, place) in places {
            file.streams.insert(*stream, place.first);
            let view = self.streams.entry(*stream).or_default();
            view.end = view.end.max(place.last + 1);
            view.places.insert(place.first, (key, *place));
        }
    }

    pub(crate) fn remove_file(&mut self, key: FileKey) {
        self.forget_places(key);
        self.files.remove(&key);
    }

    /// The rows of one stream are in another file now.
    pub(crate) fn move_place(&mut self, stream: Stream, from: FileKey, to: FileKey, place: Option<Place>) {
        let first = self.files.get_mut(&from).and_then(|file| file.streams.remove(&stream));
        if let (Some(first), Some(view)) = (first, self.streams.get_mut(&stream)) {
            view.places.remove(&first);
        }
        if let Some(place) = place {
            self.set_places(to, &[(stream, place)]);
        }
    }

    fn forget_places(&mut self, key: FileKey) {
        let Some(file) = self.files.get_mut(&key) else { return };
        for (stream, first) in std::mem::take(&mut file.streams) {
            if let Some(view) = self.streams.get_mut(&stream) {
                view.places.remove(&first);
            }
        }
    }
}

/// Numbers for names, and back.
#[derive(Debug)]
pub(crate) struct Names<T: ?Sized> {
    by_id: BTreeMap<u32, Arc<T>>,
    by_name: HashMap<Arc<T>, u32>,
    /// Above all numbers that records use, also those whose names are lost.
    next: u32,
}

impl<T: ?Sized + Hash + Eq> Default for Names<T> {
    fn default() -> Self {
        Names { by_id: BTreeMap::new(), by_name: HashMap::new(), next: 1 }
    }
}

impl<T: ?Sized + Hash + Eq> Names<T>
where
    for<'a> Arc<T>: From<&'a T>,
{
    pub(crate) fn intern(&mut self, name: &T) -> u32 {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = self.next;
        self.define(id, Arc::from(name));
        id
    }

    /// What a record says. The first record of a number counts.
    pub(crate) fn define(&mut self, id: u32, name: Arc<T>) {
        self.reserve(id);
        let first = self.by_id.entry(id).or_insert(name);
        self.by_name.entry(Arc::clone(first)).or_insert(id);
    }

    /// A record uses the number: it is given to no other name, even if the record of its own name is lost.
    pub(crate) fn reserve(&mut self, id: u32) {
        self.next = self.next.max(id.saturating_add(1));
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Arc<T>> {
        self.by_id.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Arc<T>)> {
        self.by_id.iter().map(|(id, name)| (*id, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Stream = Stream { table: 1, partition: 0 };

    fn added(first: u64, last: u64) -> Added {
        Added { first, last, offset: first * 100, bytes: 10, time: first }
    }

    #[test]
    fn rows_are_found_in_their_files() {
        let (one, two) = (FileKey::main(1), FileKey::main(2));
        let mut catalog = Catalog::default();
        catalog.add(one, STREAM, added(1, 4));
        catalog.add(one, STREAM, added(5, 9));
        catalog.add(two, STREAM, added(12, 20));
        let view = &catalog.streams[&STREAM];
        let file = |sequence| view.locate(sequence).map(|(key, place)| (key.number, place.first, place.last));
        assert_eq!(
            [1, 7, 9, 10, 12, 20].map(file),
            [1, 1, 1, 2, 2, 2].map(|n| Some(if n == 1 { (1, 1, 9) } else { (2, 12, 20) }))
        );
        assert_eq!((file(21), view.end), (None, 21));

        let side = FileKey { number: 1, side: Some(STREAM) };
        let place = catalog.places_of(one)[0].1;
        catalog.move_place(STREAM, one, side, Some(place));
        assert_eq!(catalog.streams[&STREAM].locate(3).map(|(key, _)| key), Some(side));
        assert!(catalog.files[&one].streams.is_empty());
        catalog.remove_file(side);
        assert_eq!(catalog.streams[&STREAM].locate(3).map(|(key, _)| key), Some(two));
    }
}
