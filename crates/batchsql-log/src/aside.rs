//! Owns moving the rows of tables that are set aside out of segments that nothing else keeps.
//! Must not know when space is needed.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    active::Entry,
    engine::Engine,
    error::is_no_space,
    format::{
        names::{self, TEMPORARY},
        record::{self, Header, Kind},
        segment::{self, SegmentHeader},
        snapshot::{Moved, Place},
    },
    fs::{Access, remove_if_there},
    model::{FileKey, Stream},
    scan::{Found, Scanner},
};

const COPY_BYTES: usize = 1 << 20;

/// Copies the unsettled rows of tables that are set aside out of segments that nothing else keeps.
pub(crate) fn move_aside(engine: &mut Engine) {
    let active = engine.active.as_ref().map(|active| active.key);
    let mut moves = Vec::new();
    {
        let catalog = engine.shared.catalog();
        for (key, file) in catalog.files.iter().filter(|(key, _)| key.side.is_none() && Some(**key) != active) {
            let mut places = catalog.places_of(*key);
            places.retain(|(stream, place)| !engine.is_settled(*stream, place));
            let all_aside = places.iter().all(|(stream, _)| catalog.streams[stream].is_aside);
            let bytes: u64 = places.iter().map(|(_, place)| place.bytes).sum();
            // A segment that is mostly theirs stays: to copy it would free little.
            if !places.is_empty() && all_aside && bytes <= file.length / 2 {
                moves.extend(places.into_iter().map(|(stream, place)| (*key, stream, place, file.length)));
            }
        }
    }
    for (key, stream, place, length) in moves {
        match copy_aside(engine, key, stream, &place, length) {
            Ok(Some(moved)) => engine.pending.push(Entry::Moved(moved)),
            Ok(None) => {}
            Err(error) => {
                engine.shared.stats().failures += u64::from(!is_no_space(&error));
                return;
            }
        }
    }
    let _ = engine.flush(true);
}

/// Writes the side segment of one stream and one segment. It has its name only when it is complete and synced.
fn copy_aside(
    engine: &mut Engine,
    from: FileKey,
    stream: Stream,
    place: &Place,
    length: u64,
) -> io::Result<Option<Moved>> {
    let to = FileKey { number: from.number, side: Some(stream) };
    let shared = Arc::clone(&engine.shared);
    let options = &shared.options;
    let used = shared.used.load(Ordering::SeqCst);
    if used + place.bytes + options.reserve() / 2 > options.disk_bytes {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let temporary = options.folder.join(format!("{}{TEMPORARY}", names::segment(to)));
    remove_if_there(&*options.file_system, &temporary)?;
    let made = write_copy(engine, (from, to), place.offset, length, &temporary).and_then(|copy| {
        if copy.is_some() {
            options.file_system.rename(&temporary, &shared.path(to))?;
        }
        Ok(copy)
    });
    if !matches!(made, Ok(Some(_))) {
        // On a full disk new rows need the space.
        let _ = remove_if_there(&*options.file_system, &temporary);
    }
    let Some(Copied { length, place }) = made? else { return Ok(None) };
    options.file_system.sync_folder(&options.folder)?;
    engine.lengths.insert(to, length);
    engine.is_changed = true;
    engine.update_used();
    let mut catalog = shared.catalog();
    let newest = catalog.files.get(&from).map_or_else(|| options.file_system.now(), |file| file.newest);
    catalog.move_place(stream, from, to, place);
    let file = catalog.files.entry(to).or_default();
    (file.length, file.newest) = (length, newest);
    drop(catalog);
    shared.readable.notify();
    Ok(place.map(|place| Moved { key: to, first: place.first, last: place.last }))
}

/// A side segment that is complete and synced.
struct Copied {
    length: u64,
    /// Its rows; `None`: all were settled meanwhile.
    place: Option<Place>,
}

/// Writes the rows of the side segment `to` from an offset of a segment on. `None`: some are damaged.
fn write_copy(
    engine: &Engine,
    (from, to): (FileKey, FileKey),
    start: u64,
    length: u64,
    temporary: &Path,
) -> io::Result<Option<Copied>> {
    let Some(stream) = to.side else { return Ok(None) };
    let shared = &engine.shared;
    let options = &shared.options;
    let source = options.file_system.open(&shared.path(from), Access::Read)?;
    let target = options.file_system.create(temporary)?;
    let mut scanner = Scanner::new(shared.context(from), start, length);
    let (context, now) = (shared.context(to), options.file_system.now());
    let header =
        SegmentHeader { version: segment::VERSION, incarnation: context.incarnation, tag: context.tag, base: 1 };
    let (mut bytes, mut written, mut serial) = (header.encode(), 0, 1);
    let mut schemas = BTreeSet::new();
    let mut copied: Option<Place> = None;
    let mut put = |bytes: &mut Vec<u8>, written: u64, header: Header, payload: &[u8]| {
        let offset = written + bytes.len() as u64;
        // It is never torn, so its blocks are no groups.
        record::append(bytes, &context, offset, &Header { serial, synced: 0, rest: 0, ..header }, payload);
        serial += 1;
        offset
    };
    let table = shared.catalog().tables.get(stream.table).cloned();
    if let Some(name) = table {
        let header = Header { table: stream.table, ..Header::new(Kind::Table, 0, 0, now) };
        put(&mut bytes, written, header, name.as_bytes());
    }
    let is_wanted = |header: &Header| {
        header.kind == Kind::Block && (header.table, header.partition) == (stream.table, stream.partition)
    };
    loop {
        let (header, offset) = match scanner.next(&*source, is_wanted)? {
            Found::End => break,
            // Damaged rows cannot be copied. The segment stays until they are settled, as without the move.
            Found::Damage { .. } => return Ok(None),
            Found::Record { header, offset } => (header, offset),
        };
        let Some(last) = header.last().filter(|_| is_wanted(&header)) else { continue };
        if engine.streams.get(&stream).is_some_and(|state| state.durable_settled.contains(header.first, last)) {
            continue;
        }
        let schema = shared.catalog().schemas.get(header.schema).cloned();
        if let (true, Some(schema)) = (schemas.insert(header.schema), schema) {
            put(&mut bytes, written, Header { schema: header.schema, ..Header::new(Kind::Schema, 0, 0, now) }, &schema);
        }
        let offset = put(&mut bytes, written, header, scanner.payload(offset, &header));
        let first = Place { first: header.first, last, offset, blocks: 0, bytes: 0, oldest: header.time };
        let copied = copied.get_or_insert(first);
        copied.last = last;
        copied.blocks += 1;
        copied.bytes += header.size();
        if bytes.len() >= COPY_BYTES {
            target.write_at(&bytes, written)?;
            written += bytes.len() as u64;
            bytes.clear();
        }
    }
    target.write_at(&bytes, written)?;
    written += bytes.len() as u64;
    target.sync_data()?;
    Ok(Some(Copied { length: written, place: copied }))
}
