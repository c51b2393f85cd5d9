//! Owns the start: what the segments of a folder say, and which part of them counts.
//! Must not know writing.

mod apply;
mod finish;
mod groups;
mod read;

use std::{collections::BTreeMap, io, path::Path};

use crate::{
    active::Entry,
    catalog::Catalog,
    end::{self, End},
    engine::{Start, StreamState},
    error::{LogError, LogErrorKind},
    format::{
        identity::hex,
        keys::KeyRecord,
        names::{self, QUARANTINE},
        record::{self, Context, Kind},
        segment::{self, SegmentHeader},
        snapshot::{CloseState, Moved},
    },
    fs::{Access, File, FileSystem},
    keys::Keys,
    model::{FileKey, Stream},
    options::Options,
    ranges::Ranges,
    recovery::{Damage, Recovery, UnfinishedSegment},
    scan::{Found, Scanner},
};

/// A segment that was found.
#[derive(Debug)]
struct Segment {
    key: FileKey,
    name: String,
    length: u64,
    header: Option<SegmentHeader>,
    /// The serial of its first record; `None` if it has neither a header nor a record.
    base: Option<u64>,
}

pub(crate) struct Recovered {
    pub(crate) catalog: Catalog,
    pub(crate) keys: Keys,
    pub(crate) start: Start,
    pub(crate) recovery: Recovery,
}

/// Whether the start may change files: keep damaged bytes, and remove files that are not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Repair,
    Look,
}

/// Reads the folder, whose identity is known.
pub(crate) fn recover(options: &Options, incarnation: [u8; 16], mode: Mode) -> Result<Recovered, LogError> {
    let mut recoverer = Recoverer {
        options,
        file_system: &*options.file_system,
        folder: &options.folder,
        incarnation,
        mode,
        catalog: Catalog::default(),
        keys: Keys::new(options.key_limits()),
        now: options.file_system.now(),
        group_keys: None,
        streams: BTreeMap::new(),
        present: BTreeMap::new(),
        moved: Vec::new(),
        recovery: Recovery { incarnation, ..Recovery::default() },
        lengths: BTreeMap::new(),
        uncertain: Vec::new(),
        pending: Vec::new(),
        tails: Vec::new(),
        newest_synced: None,
        next_serial: 1,
        seen_serial: 0,
        read_bytes: 0,
        reported_bytes: 0,
        total_bytes: 0,
    };
    let next_number = recoverer.run().map_err(|problem| match problem {
        Problem::Io(error) => LogError::io("read the log in", &options.folder, error),
        Problem::Log(error) => error,
    })?;
    recoverer.finish(next_number).map_err(|error| LogError::io("read the log in", &options.folder, error))
}

enum Problem {
    Io(io::Error),
    Log(LogError),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Problem::Io(error)
    }
}

struct Recoverer<'a> {
    options: &'a Options,
    file_system: &'a dyn FileSystem,
    folder: &'a Path,
    incarnation: [u8; 16],
    mode: Mode,
    catalog: Catalog,
    /// Those that are on disk.
    keys: Keys,
    now: u64,
    /// Of the group that follows, which may not be on disk, with the number of its blocks.
    group_keys: Option<(u32, Vec<KeyRecord>)>,
    streams: BTreeMap<Stream, StreamState>,
    /// Rows that are in files.
    present: BTreeMap<Stream, Ranges>,
    moved: Vec<Moved>,
    recovery: Recovery,
    lengths: BTreeMap<FileKey, u64>,
    /// Records of each segment that may not be on disk.
    uncertain: Vec<Vec<Entry>>,
    pending: Vec<Entry>,
    tails: Vec<(FileKey, u64)>,
    /// See [`Engine::newest_synced`](crate::engine::Engine::newest_synced).
    newest_synced: Option<FileKey>,
    next_serial: u64,
    /// The highest one of a record that was read.
    seen_serial: u64,
    read_bytes: u64,
    reported_bytes: u64,
    total_bytes: u64,
}

impl Recoverer<'_> {
    /// Returns the number of the next segment.
    fn run(&mut self) -> Result<u64, Problem> {
        let mut keys = BTreeMap::new();
        for (name, length) in self.file_system.list(self.folder)? {
            if let Some(key) = names::parse(&name) {
                keys.insert(key, length);
            } else if name.ends_with(names::TEMPORARY) && self.mode == Mode::Repair {
                self.file_system.remove(&self.folder.join(name))?;
            }
        }
        if self.mode == Mode::Repair && !keys.is_empty() {
            // What the process before has removed last may still be on disk. After a power loss it would be back, beside a segment
            // that this process makes without knowing it.
            self.file_system.sync_folder(self.folder)?;
        }
        let end = end::read(self.options, self.incarnation).map_err(Problem::Log)?;
        let after_end = end.as_ref().map_or(1, |end| end.number.saturating_add(1));
        let next_number = keys.keys().map(|key| key.number.saturating_add(1)).max().unwrap_or(1).max(after_end);
        self.recovery.segments = keys.keys().filter(|key| key.side.is_none()).count() as u64;
        // A look reads everything: that is what it is for.
        let is_new = keys.is_empty() && end.is_none();
        if is_new || (!keys.is_empty() && self.mode == Mode::Repair && self.read_clean_close(&keys)?) {
            self.recovery.is_clean = true;
            self.lengths = keys;
            return Ok(next_number);
        }
        self.total_bytes = keys.values().sum();
        let mut segments = Vec::new();
        for (key, length) in keys {
            // The segment itself is complete: the copy was made, but the segment not removed.
            let is_copied = key.side.is_some() && segments.iter().any(|s: &Segment| s.key == FileKey::main(key.number));
            if is_copied {
                if self.mode == Mode::Repair {
                    self.file_system.remove(&self.folder.join(names::segment(key)))?;
                }
                continue;
            }
            segments.push(self.look_at(key, length)?);
        }
        self.drop_unborn(&mut segments)?;
        self.read_segments(&segments, end.as_ref().map_or(0, |end| end.synced))?;
        if let Some(end) = end {
            self.compare_with(end);
        }
        Ok(next_number)
    }

    /// What the last clean close had is there, or something has cut or removed files since: no crash does that.
    fn compare_with(&mut self, end: End) {
        if self.seen_serial < end.synced {
            let file = names::segment(FileKey::main(end.number));
            if !self.recovery.damages.iter().any(|damage| damage.file == file) {
                let offset = self.lengths.get(&FileKey::main(end.number)).copied().unwrap_or_default();
                let (length, kept_in, was_known, rows) = (0, None, false, None);
                self.recovery.damages.push(Damage { file, offset, length, kept_in, was_known, rows });
            }
        }
        self.apply_snapshot(end.snapshot);
    }

    /// If the newest segment ends with a clean close that describes exactly these files, takes over its state.
    fn read_clean_close(&mut self, keys: &BTreeMap<FileKey, u64>) -> Result<bool, Problem> {
        let Some((&key, &length)) = keys.iter().rfind(|(key, _)| key.side.is_none()) else { return Ok(false) };
        let file = self.file_system.open(&self.folder.join(names::segment(key)), Access::Read)?;
        let context = self.context(key);
        let mut bytes = [0; segment::HEADER];
        let read = file.read_at(&mut bytes, 0)?;
        let Some(start) = SegmentHeader::decode(&bytes[..read]) else { return Ok(false) };
        self.check(&start, key, &names::segment(key)).map_err(Problem::Log)?;
        let mut mark = [0; record::CLOSE_MARK];
        let mark_at = length.saturating_sub(mark.len() as u64);
        let read = file.read_at(&mut mark, mark_at)?;
        let Some(offset) = record::parse_close_mark(&mark[..read], &context).filter(|&offset| offset < length) else {
            return Ok(false);
        };
        let mut scanner = Scanner::new(context, offset, length);
        let Found::Record { header, offset } = scanner.next(&*file, |_| true)? else { return Ok(false) };
        if header.kind != Kind::Close || scanner.offset() != length {
            return Ok(false);
        }
        let Some(state) = CloseState::decode(scanner.payload(offset, &header), start.version) else { return Ok(false) };
        let described: BTreeMap<FileKey, u64> = state.files.iter().map(|file| (file.key, file.length)).collect();
        let is_same = described.len() == keys.len()
            && described.iter().all(|(of, length)| {
                if *of == key { *length == offset } else { keys.get(of).is_some_and(|found| found == length) }
            });
        if !is_same {
            return Ok(false);
        }
        self.apply_snapshot(state.snapshot);
        state.schemas.into_iter().for_each(|(id, bytes)| self.catalog.schemas.define(id, bytes));
        self.add_keys(state.keys);
        for (stream, lost) in state.lost {
            self.catalog.streams.entry(stream).or_default().lost = lost;
        }
        for file in state.files {
            self.recovery.blocks += file.places.iter().map(|(_, place)| place.blocks).sum::<u64>();
            self.catalog.set_places(file.key, &file.places);
            let view = self.catalog.files.entry(file.key).or_default();
            (view.length, view.newest) = (file.length, file.newest);
            for (stream, place) in &file.places {
                self.present.entry(*stream).or_default().insert(place.first, place.last);
            }
        }
        // The next segment takes the place of the close: it is not known whether the sync of the close has succeeded.
        self.next_serial = header.serial;
        self.newest_synced = Some(key);
        self.tails.push((key, offset));
        Ok(true)
    }

    /// Files are opened one after the other: there may be thousands.
    fn open(&self, segment: &Segment) -> io::Result<Box<dyn File>> {
        self.file_system.open(&self.folder.join(&segment.name), Access::Read)
    }

    fn context(&self, key: FileKey) -> Context {
        Context { incarnation: self.incarnation, tag: key.tag() }
    }

    fn look_at(&self, key: FileKey, length: u64) -> Result<Segment, Problem> {
        let name = names::segment(key);
        let file = self.file_system.open(&self.folder.join(&name), Access::Read)?;
        let mut bytes = [0; segment::HEADER];
        let read = file.read_at(&mut bytes, 0)?;
        let header = SegmentHeader::decode(&bytes[..read]);
        if let Some(header) = &header {
            self.check(header, key, &name).map_err(Problem::Log)?;
        }
        let mut base = header.map(|header| header.base);
        if base.is_none() {
            let mut scanner = Scanner::new(self.context(key), segment::HEADER as u64, length);
            loop {
                match scanner.next(&*file, |_| true)? {
                    Found::Record { header, .. } => base = Some(header.serial),
                    Found::Damage { .. } => continue,
                    Found::End => {}
                }
                break;
            }
        }
        Ok(Segment { key, name, length, header, base })
    }

    /// Whether a segment that has no header has a part of it: zeros, or its first bytes and no more. A crash leaves no other bytes: the
    /// header is in one sector.
    fn begins_as_header(&self, name: &str, key: FileKey) -> io::Result<bool> {
        let mut bytes = [0; segment::HEADER];
        let read = self.file_system.open(&self.folder.join(name), Access::Read)?.read_at(&mut bytes, 0)?;
        // It may be any.
        let base = segment::base_of(&bytes);
        let is_prefix = |version| {
            let header = SegmentHeader { version, incarnation: self.incarnation, tag: key.tag(), base };
            header.encode().starts_with(&bytes[..read])
        };
        Ok(bytes.iter().all(|byte| *byte == 0) || (1..=segment::VERSION).any(is_prefix))
    }

    fn check(&self, header: &SegmentHeader, key: FileKey, name: &str) -> Result<(), LogError> {
        let folder = self.folder.display();
        if !(1..=segment::VERSION).contains(&header.version) {
            let message = format!(
                "the segment {name} in {folder} has version {} of the format, this program reads up to version {}; use a \
                 newer program",
                header.version,
                segment::VERSION
            );
            return Err(LogError::new(LogErrorKind::NewerFormat, message));
        }
        if header.incarnation != self.incarnation {
            let message = format!(
                "the segment {name} in {folder} belongs to the log {}, this is the log {}; move the segment to its own \
                 folder",
                hex(&header.incarnation),
                hex(&self.incarnation)
            );
            return Err(LogError::new(LogErrorKind::Foreign, message));
        }
        if header.tag != key.tag() {
            let message = format!(
                "the segment {name} in {folder} has been renamed, it was number {}; give it its name back",
                header.tag & !(1 << 63)
            );
            return Err(LogError::new(LogErrorKind::Foreign, message));
        }
        Ok(())
    }

    /// The newest segments may have neither a header nor a record: the crash was before their first sync. Those that do not begin as
    /// a header does are damaged.
    fn drop_unborn(&mut self, segments: &mut Vec<Segment>) -> io::Result<()> {
        while let Some(last) = segments.iter().rposition(|segment| segment.key.side.is_none()) {
            if segments[last].base.is_some() {
                return Ok(());
            }
            let segment = segments.remove(last);
            let path = self.folder.join(&segment.name);
            if segment.length == 0 {
                if self.mode == Mode::Repair {
                    self.file_system.remove(&path)?;
                }
                self.recovery.unfinished_segments.push(UnfinishedSegment { file: segment.name, length: 0 });
                continue;
            }
            // Something else may have overwritten or cut it, so it is kept.
            let quarantine = self.folder.join(QUARANTINE);
            let kept_in = quarantine.join(&segment.name);
            let is_begun = self.begins_as_header(&segment.name, segment.key)?;
            if self.mode == Mode::Repair {
                self.file_system.create_folder(&quarantine)?;
                self.file_system.rename(&path, &kept_in)?;
                self.file_system.sync_folder(&quarantine)?;
            }
            if is_begun {
                self.recovery.torn_bytes += segment.length;
                let length = segment.length;
                self.recovery.unfinished_segments.push(UnfinishedSegment { file: segment.name, length });
            } else {
                self.recovery.damages.push(Damage {
                    file: segment.name,
                    offset: 0,
                    length: segment.length,
                    kept_in: Some(kept_in).filter(|_| self.mode == Mode::Repair),
                    was_known: false,
                    rows: None,
                });
            }
        }
        Ok(())
    }
}
