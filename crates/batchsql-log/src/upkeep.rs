//! Owns freeing space: segments whose rows are settled are removed, and rows of tables that are set aside are moved out of
//! the way. Also the check of the free space, and the clean close.
//! Must not know queues.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    active::Entry,
    catalog::FileView,
    engine::Engine,
    error::LogError,
    format::{
        names::{self, TEMPORARY},
        record::{self, Header, Kind},
        segment::{self, SegmentHeader},
        snapshot::{CloseState, FileSnapshot, Moved, Place},
    },
    fs::Access,
    model::{FileKey, Stream},
    options::Options,
    scan::{Found, Scanner},
    shared::Full,
};

/// How long the writer waits before it tries a full or failing disk again.
pub(crate) const FULL_RECHECK: Duration = Duration::from_millis(200);
/// With `keep_for`, how often the age of segments is checked.
const AGE_CHECK: Duration = Duration::from_secs(1);
/// Between two looks for segments to remove, unless somebody waits for space.
const TRIM_EVERY: Duration = Duration::from_millis(50);
const FREE_CHECK_BYTES: u64 = 1 << 20;
const COPY_BYTES: usize = 1 << 20;

/// When which upkeep was last done.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    settled_since_trim: bool,
    trimmed_at: Option<Instant>,
    free_checked_at_block_bytes: Option<u64>,
    full_since: Option<Instant>,
    /// When it was last asked whether kept files give way.
    asked_at: Option<Instant>,
}

impl Upkeep {
    pub(crate) fn settled(&mut self) {
        self.settled_since_trim = true;
    }

    /// When it must be called again without other work.
    pub(crate) fn due(&self, engine: &Engine) -> Option<Duration> {
        let since = |every: Duration| self.trimmed_at.map_or(every, |at| every.saturating_sub(at.elapsed()));
        let full = self.full_since.map(|at| FULL_RECHECK.saturating_sub(at.elapsed()));
        let trim = self.settled_since_trim.then(|| since(TRIM_EVERY));
        let age = (!engine.shared.options.keep_for.is_zero() && engine.lengths.len() > 1).then(|| since(AGE_CHECK));
        [full, trim, age].into_iter().flatten().min()
    }

    /// Frees what can be freed. `is_urgent`: somebody waits for it.
    pub(crate) fn run(&mut self, engine: &mut Engine, is_urgent: bool) {
        self.check_full(engine);
        let waited = self.trimmed_at.is_none_or(|at| at.elapsed() >= TRIM_EVERY);
        let keeps = !engine.shared.options.keep_for.is_zero();
        let aged = keeps && self.trimmed_at.is_none_or(|at| at.elapsed() >= AGE_CHECK);
        // Before a block is refused.
        let asks = keeps && engine.active.is_some() && self.asked_at.is_none_or(|at| at.elapsed() >= TRIM_EVERY);
        if asks {
            self.asked_at = Some(Instant::now());
        }
        let gives_way = || asks && next_to_give_way(engine).is_some();
        if is_urgent || aged || (self.settled_since_trim && waited) || gives_way() {
            self.settled_since_trim = false;
            self.trimmed_at = Some(Instant::now());
            let removed = make_place(engine) + trim(engine, is_urgent);
            engine.shared.stats().trimmed += removed as u64;
            if removed > 0 {
                engine.shared.space.notify();
                engine.shared.readable.notify();
            }
        }
    }

    /// Refuses blocks below `min_free_bytes`, and tries again what has failed.
    fn check_full(&mut self, engine: &mut Engine) {
        let full = engine.shared.intake().full;
        if full.is_some() && self.full_since.is_some_and(|at| at.elapsed() < FULL_RECHECK) {
            return;
        }
        let options = &engine.shared.options;
        let written = engine.shared.stats().appended_bytes;
        let is_due = full.is_some()
            || self.free_checked_at_block_bytes.is_none_or(|at| written.saturating_sub(at) >= FREE_CHECK_BYTES);
        if !is_due {
            return;
        }
        self.free_checked_at_block_bytes = Some(written);
        let now = match full {
            _ if is_low(options) => Some(Full::MinFree),
            // Kept entries are written before new ones are taken.
            Some(full @ (Full::NoSpace | Full::Failing))
                if self.full_since.is_none() || engine.flush(true).is_err() =>
            {
                Some(full)
            }
            _ => None,
        };
        self.full_since = now.map(|_| Instant::now());
        engine.shared.intake().full = now;
        if now != full {
            engine.shared.space.notify();
        }
    }
}

/// Removes files; returns how many.
fn trim(engine: &mut Engine, is_urgent: bool) -> usize {
    if engine.active.is_none() && !is_urgent {
        // The next segment starts with a snapshot of what is settled; until then the old ones have it.
        return 0;
    }
    let has_aside = engine.shared.catalog().streams.values().any(|view| view.is_aside);
    let gives_way = next_to_give_way(engine).is_some();
    if removable(engine, false, Kept::Stay).is_empty() && !has_aside && !is_urgent && !is_tight(engine) && !gives_way {
        return 0;
    }
    if engine.flush(true).is_err() {
        return 0;
    }
    if engine.active.is_none() && removable(engine, true, Kept::Stay).is_empty() && !gives_way {
        // A clean close that is still true stays.
        return 0;
    }
    if !engine.cut_tails() {
        return 0;
    }
    move_aside(engine);
    if is_tight(engine) && active_is_settled(engine) && engine.start_segment().is_err() {
        return 0;
    }
    let keys = removable(engine, true, Kept::Stay);
    let is_needed = !keys.is_empty() || next_to_give_way(engine).is_some();
    if !is_needed || (engine.active.is_none() && engine.start_segment().is_err()) {
        return 0;
    }
    let mut removed = 0;
    for key in keys {
        removed += usize::from(remove(engine, key));
    }
    while let Some(key) = next_to_give_way(engine) {
        if !remove(engine, key) {
            break;
        }
        removed += 1;
        // The disk may show the space later, so the next file waits for the next look.
        if !is_tight(engine) {
            break;
        }
    }
    removed
}

/// A full disk takes what is pending only after something was removed: the oldest kept file gives way. That its rows are settled
/// is on disk, in the active segment too. Returns how many files are gone.
fn make_place(engine: &mut Engine) -> usize {
    if engine.active.is_none() || engine.shared.intake().full != Some(Full::NoSpace) {
        return 0;
    }
    usize::from(next_to_give_way(engine).is_some_and(|key| remove(engine, key)))
}

/// Whether the file is gone.
fn remove(engine: &mut Engine, key: FileKey) -> bool {
    let is_removed = engine.remove_segment(key).is_ok();
    if is_removed {
        engine.shared.catalog().remove_file(key);
    }
    is_removed
}

/// With `keep_for`, the oldest file whose time is not over, and which is removed nevertheless, because new rows need its space.
fn next_to_give_way(engine: &Engine) -> Option<FileKey> {
    let options = &engine.shared.options;
    if options.keep_for.is_zero() {
        return None;
    }
    let full = engine.shared.intake().full;
    let needs_space =
        is_tight(engine) || full == Some(Full::NoSpace) || (full == Some(Full::MinFree) && is_low(options));
    if needs_space { removable(engine, true, Kept::GiveWay).into_iter().next() } else { None }
}

/// The disk has less than `min_free_bytes` left.
fn is_low(options: &Options) -> bool {
    options.min_free_bytes > 0
        && matches!(options.file_system.free_bytes(&options.folder), Ok(Some(free)) if free < options.min_free_bytes)
}

/// A block may be refused for want of space.
fn is_tight(engine: &Engine) -> bool {
    let options = &engine.shared.options;
    let used = engine.shared.used.load(Ordering::SeqCst);
    used + options.reserve() + options.segment_bytes > options.disk_bytes
}

fn is_settled(engine: &Engine, stream: Stream, place: &Place) -> bool {
    engine.streams.get(&stream).is_some_and(|state| state.durable_settled.contains(place.first, place.last))
}

/// What becomes of settled files whose time (`keep_for`) is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Stay,
    GiveWay,
}

/// Files without unsettled rows, the oldest first; `durably`: as it is on disk.
fn removable(engine: &Engine, durably: bool, kept_files: Kept) -> Vec<FileKey> {
    let options = &engine.shared.options;
    let kept_since = options.file_system.now().saturating_sub(millis(options.keep_for));
    let active = engine.active.as_ref().map(|active| active.key);
    let catalog = engine.shared.catalog();
    let mut kept: BTreeSet<FileKey> = active.into_iter().collect();
    for (stream, view) in &catalog.streams {
        let is_open = |place: &Place| match durably {
            true => !is_settled(engine, *stream, place),
            false => !view.settled.contains(place.first, place.last),
        };
        kept.extend(view.places().filter(|(_, place)| is_open(place)).map(|(key, _)| *key));
    }
    let is_removable = |(key, file): &(&FileKey, &FileView)| {
        // Without `keep_for` a clock that goes back must not keep segments.
        let is_old = options.keep_for.is_zero() || kept_files == Kept::GiveWay || file.newest <= kept_since;
        // A file without blocks is removed with others, not for itself.
        let has_blocks = !file.streams.is_empty() || durably;
        is_old && has_blocks && !kept.contains(key)
    };
    let keys: Vec<FileKey> = catalog.files.iter().filter(is_removable).map(|(key, _)| *key).collect();
    let needs_segment = active.is_none() && keys.iter().all(|key| catalog.files[key].streams.is_empty());
    if needs_segment { Vec::new() } else { keys }
}

fn active_is_settled(engine: &Engine) -> bool {
    let Some(active) = engine.active.as_ref().filter(|active| active.has_blocks) else { return false };
    let places = engine.shared.catalog().places_of(active.key);
    places.iter().all(|(stream, place)| is_settled(engine, *stream, place))
}

/// Copies the unsettled rows of tables that are set aside out of segments that nothing else keeps.
fn move_aside(engine: &mut Engine) {
    let active = engine.active.as_ref().map(|active| active.key);
    let mut moves = Vec::new();
    {
        let catalog = engine.shared.catalog();
        for (key, file) in catalog.files.iter().filter(|(key, _)| key.side.is_none() && Some(**key) != active) {
            let mut places = catalog.places_of(*key);
            places.retain(|(stream, place)| !is_settled(engine, *stream, place));
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
            Err(_) => {
                engine.shared.stats().failures += 1;
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
    let path = shared.path(to);
    let temporary = options.folder.join(format!("{}{TEMPORARY}", names::segment(to)));
    match options.file_system.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let source = options.file_system.open(&shared.path(from), Access::Read)?;
    let target = options.file_system.create(&temporary)?;
    let mut scanner = Scanner::new(shared.context(from), place.offset, length);
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
    options.file_system.rename(&temporary, &path)?;
    options.file_system.sync_folder(&options.folder)?;
    engine.lengths.insert(to, written);
    engine.is_changed = true;
    engine.update_used();
    let mut catalog = shared.catalog();
    let newest = catalog.files.get(&from).map_or(now, |file| file.newest);
    catalog.move_place(stream, from, to, copied);
    let file = catalog.files.entry(to).or_default();
    (file.length, file.newest) = (written, newest);
    drop(catalog);
    shared.readable.notify();
    Ok(copied.map(|place| Moved { key: to, first: place.first, last: place.last }))
}

/// Writes the state of the log behind everything else, so that the next start reads nothing but it.
pub(crate) fn close(engine: &mut Engine) -> Result<(), LogError> {
    engine.flush(true)?;
    let folder = engine.shared.options.folder.clone();
    if !engine.cut_tails() || (engine.active.is_none() && !engine.is_changed) {
        return Ok(());
    }
    if engine.active.is_none() {
        engine.start_segment()?;
    }
    let (snapshot, keys) = (engine.snapshot(), engine.durable_keys());
    let Some(active) = &engine.active else { return Ok(()) };
    let catalog = engine.shared.catalog();
    let file = |(key, file): (&FileKey, &FileView)| FileSnapshot {
        key: *key,
        length: if *key == active.key { active.length } else { file.length },
        newest: file.newest,
        places: catalog.places_of(*key),
    };
    let state = CloseState {
        snapshot,
        schemas: catalog.schemas.iter().map(|(id, bytes)| (id, Arc::clone(bytes))).collect(),
        files: catalog.files.iter().map(file).collect(),
        lost: catalog.streams.iter().map(|(stream, view)| (*stream, view.lost.clone())).collect(),
        keys,
    };
    drop(catalog);
    let context = engine.shared.context(active.key);
    let mut payload = state.encode();
    payload.resize(payload.len().next_multiple_of(record::ALIGN), 0);
    payload.extend(record::close_mark(&context, active.length));
    let (now, serial) = (engine.shared.options.file_system.now(), engine.next_serial);
    let mut bytes = Vec::new();
    let header = Header::new(Kind::Close, serial, serial - 1, now);
    record::append(&mut bytes, &context, active.length, &header, &payload);
    active
        .file
        .write_at(&bytes, active.length)
        .and_then(|()| active.file.sync_data())
        .map_err(|error| LogError::io("write the clean close to", &folder, error))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
