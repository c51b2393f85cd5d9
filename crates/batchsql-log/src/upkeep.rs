//! Owns freeing space: segments whose rows are settled are removed. Also the check of the free space, and the clean close.
//! Must not know queues.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    aside::move_aside,
    catalog::FileView,
    end,
    engine::Engine,
    error::{LogError, LogErrorKind},
    format::{
        names,
        record::{self, Header, Kind},
        snapshot::{CloseState, FileSnapshot, Place},
    },
    model::FileKey,
    options::Options,
    shared::Full,
};

/// How long the writer waits before it tries a full or failing disk again.
pub(crate) const FULL_RECHECK: Duration = Duration::from_millis(200);
/// With `keep_for`, how often the age of segments is checked.
const AGE_CHECK: Duration = Duration::from_secs(1);
/// Between two looks for segments to remove, unless somebody waits for space.
const TRIM_EVERY: Duration = Duration::from_millis(50);
const FREE_CHECK_BYTES: u64 = 1 << 20;

/// When which upkeep was last done.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    settled_since_trim: bool,
    trimmed_at: Option<Instant>,
    free_checked_at_block_bytes: Option<u64>,
    full_since: Option<Instant>,
    /// When it was last asked whether kept files give way.
    asked_at: Option<Instant>,
    /// When a full disk last got space from a file.
    made_place_at: Option<Instant>,
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
        let is_refusing = matches!(engine.shared.intake().full, Some(Full::NoSpace | Full::MinFree));
        // Before a block is refused, and while blocks are.
        let asks = ((keeps && engine.active.is_some()) || is_refusing)
            && self.asked_at.is_none_or(|at| at.elapsed() >= TRIM_EVERY);
        if asks {
            self.asked_at = Some(Instant::now());
        }
        // The segment that is being written, too: all rows may be in it.
        let has_settled = || active_is_settled(engine) || !removable(engine, true, Kept::GiveWay).is_empty();
        let gives_way = || asks && lacks_space(engine) && has_settled();
        if is_urgent || aged || (self.settled_since_trim && waited) || gives_way() {
            self.settled_since_trim = false;
            self.trimmed_at = Some(Instant::now());
            let mut removed = trim(engine, is_urgent);
            // The disk may show the space later, so the next file waits.
            if removed == 0 && self.made_place_at.is_none_or(|at| at.elapsed() >= TRIM_EVERY) {
                removed = make_place(engine);
                self.made_place_at = (removed > 0).then(Instant::now);
            }
            engine.shared.stats().trimmed += removed as u64;
            if removed > 0 {
                let full = engine.shared.intake().full;
                if full == Some(Full::NoSpace) && engine.flush(true).is_ok() {
                    engine.shared.intake().full = None;
                    self.full_since = None;
                }
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
    let is_short = lacks_space(engine);
    let kept = if is_short { Kept::GiveWay } else { Kept::Stay };
    if removable(engine, false, kept).is_empty() && !has_aside && !is_urgent && !is_short {
        return 0;
    }
    if engine.flush(true).is_err() {
        return 0;
    }
    if engine.active.is_none() && removable(engine, true, kept).is_empty() {
        // A clean close that is still true stays.
        return 0;
    }
    // Without a new segment they may be what says what is settled: a start does not know whether that is on disk.
    if engine.active.is_some() && !engine.cut_tails() {
        return 0;
    }
    move_aside(engine);
    if lacks_space(engine) && active_is_settled(engine) && engine.start_segment().is_err() {
        return 0;
    }
    let mut kept: BTreeSet<FileKey> = match kept {
        Kept::GiveWay => removable(engine, true, Kept::GiveWay).into_iter().collect(),
        Kept::Stay => BTreeSet::new(),
    };
    let keys = removable(engine, true, Kept::Stay);
    kept.retain(|key| !keys.contains(key));
    if (keys.is_empty() && kept.is_empty()) || (engine.active.is_none() && engine.start_segment().is_err()) {
        return 0;
    }
    if !engine.tails.is_empty() {
        return 0;
    }
    let mut removed = 0;
    for key in keys {
        removed += usize::from(remove(engine, key));
    }
    for key in kept {
        if !lacks_space(engine) || !remove(engine, key) {
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

/// Writes what the run before may not have synced. On a full disk settled files give way to it.
pub(crate) fn write_at_start(engine: &mut Engine) -> Result<(), LogError> {
    while let Err(error) = engine.flush(true) {
        let removed = make_place(engine);
        if removed == 0 {
            return Err(error);
        }
        engine.shared.stats().trimmed += removed as u64;
    }
    engine.shared.intake().full = None;
    Ok(())
}

/// A full disk takes neither what is pending nor a new segment before something is removed: the oldest file whose rows are settled,
/// as it is on disk, gives way. The segment that says so stays. Returns how many files are gone.
fn make_place(engine: &mut Engine) -> usize {
    if !is_out_of_space(engine) {
        return 0;
    }
    let oldest = removable(engine, true, Kept::GiveWay).into_iter().find(|key| !engine.is_needed(*key));
    usize::from(oldest.is_some_and(|key| remove(engine, key)))
}

/// Whether the file is gone.
fn remove(engine: &mut Engine, key: FileKey) -> bool {
    let is_removed = engine.remove_segment(key).is_ok();
    if is_removed {
        engine.shared.catalog().remove_file(key);
    }
    is_removed
}

/// New rows need space: settled files whose time (`keep_for`) is not over are removed nevertheless, the oldest first.
fn lacks_space(engine: &Engine) -> bool {
    is_tight(engine) || is_out_of_space(engine)
}

/// The disk takes no more rows.
fn is_out_of_space(engine: &Engine) -> bool {
    // The file system may take long to answer, and nobody can append while the lock is held.
    let full = engine.shared.intake().full;
    match full {
        Some(Full::NoSpace) => true,
        Some(Full::MinFree) => is_low(&engine.shared.options),
        Some(Full::Failing) | None => false,
    }
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
            true => !engine.is_settled(*stream, place),
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
    places.iter().all(|(stream, place)| engine.is_settled(*stream, place))
}

/// Writes the state of the log behind everything else, so that the next start reads nothing but it.
pub(crate) fn close(engine: &mut Engine) -> Result<(), LogError> {
    engine.flush(true)?;
    let folder = engine.shared.options.folder.clone();
    if engine.active.is_none() {
        if !engine.is_changed {
            return segments_are_there(engine);
        }
        engine.start_segment()?;
    }
    if !engine.cut_tails() {
        return Ok(());
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
        .map_err(|error| LogError::io("write the clean close to", &folder, error))?;
    // Without it a later start finds less; the one of an earlier close stays true.
    end::write(engine, active.key.number).map_err(|error| {
        let message = format!(
            "cannot write {}, by which a start finds whether the log has lost its end; look whether the folder and its files are there, and \
             whether the disk has space",
            end::path(&engine.shared.options).display()
        );
        LogError::new(LogErrorKind::Io, message).with_source(error)
    })
}

/// Of a log that has nothing to write, and so would not notice that its folder was removed.
fn segments_are_there(engine: &Engine) -> Result<(), LogError> {
    let Options { folder, file_system, .. } = &engine.shared.options;
    let files = file_system.list(folder).map_err(|error| LogError::io("list the files in", folder, error))?;
    let there: BTreeSet<FileKey> = files.iter().filter_map(|(name, _)| names::parse(name)).collect();
    match engine.lengths.keys().find(|key| !there.contains(key)) {
        None => Ok(()),
        Some(missing) => Err(LogError::new(
            LogErrorKind::Io,
            format!(
                "{} was removed while the log was open; put it back, or its rows are missing at the next start",
                engine.shared.path(*missing).display()
            ),
        )),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
