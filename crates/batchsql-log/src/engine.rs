//! Owns writing: groups of entries, and syncs.
//! Must not know threads and queues, and what is done after a failure (`failure`).

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    active::{Active, Entry, PendingBlock, Serials},
    catalog::Added,
    error::{LogError, is_no_space},
    format::{
        keys::KeyRecord,
        snapshot::{Place, Settled},
    },
    fs::Lock,
    model::{FileKey, Stream},
    options::SyncPolicy,
    ranges::Ranges,
    shared::{Full, Queued, Shared},
};

/// Segments that are tried for one group, before its rows are given back as undetermined.
const ATTEMPTS: usize = 3;
/// With `SyncPolicy::Os`: what may be written and not synced.
const UNSYNCED_BYTES: u64 = 8 << 20;
const UNSYNCED_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) streams: BTreeMap<Stream, StreamState>,
    /// Written or not, but not synced.
    pub(crate) pending: Vec<Entry>,
    /// How many of them are in the active segment.
    pub(crate) written: usize,
    /// Bytes of written blocks that are not acknowledged, with headers: the queue counts them too.
    pub(crate) unacknowledged: u64,
    pub(crate) active: Option<Active>,
    pub(crate) next_serial: u64,
    pub(crate) synced_serial: u64,
    pub(crate) next_number: u64,
    /// The newest segment that is on disk: it has all that is settled, as it is on disk, and the names and keys. Until the next
    /// one is there it must not be removed. `None`: after a start that found it damaged, the others are needed too.
    pub(crate) newest_synced: Option<FileKey>,
    /// Segments that were given up, and the length up to which they count.
    pub(crate) tails: Vec<(FileKey, u64)>,
    /// Of all segments that may be on disk.
    pub(crate) lengths: BTreeMap<FileKey, u64>,
    pub(crate) quarantine_bytes: u64,
    pub(crate) unsynced_since: Option<Instant>,
    /// With `SyncPolicy::Os`: what the catalogue knew of the active segment at its last sync.
    pub(crate) restore: Vec<(Stream, Place)>,
    /// Files have changed since the clean close that is on disk.
    pub(crate) is_changed: bool,
    _lock: Box<dyn Lock>,
}

#[derive(Debug, Clone)]
pub(crate) struct StreamState {
    /// The sequence of the next row.
    pub(crate) next: u64,
    /// The same, and the settled rows, as they are on disk.
    pub(crate) durable_next: u64,
    pub(crate) durable_settled: Ranges,
}

impl Default for StreamState {
    fn default() -> Self {
        StreamState { next: 1, durable_next: 1, durable_settled: Ranges::default() }
    }
}

/// Where an engine starts.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) streams: BTreeMap<Stream, StreamState>,
    pub(crate) next_serial: u64,
    pub(crate) next_number: u64,
    /// See [`Engine::newest_synced`].
    pub(crate) newest_synced: Option<FileKey>,
    pub(crate) lengths: BTreeMap<FileKey, u64>,
    pub(crate) quarantine_bytes: u64,
    /// What the run before may not have synced.
    pub(crate) pending: Vec<Entry>,
    /// Segments that count only up to this length.
    pub(crate) tails: Vec<(FileKey, u64)>,
    pub(crate) is_changed: bool,
}

/// Why a group was not written.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no space, and it is certain that nothing of the group is in the log.
    Refused(io::Error),
    /// It is not known what is on disk.
    Unknown(io::Error),
}

impl Engine {
    pub(crate) fn new(shared: Arc<Shared>, lock: Box<dyn Lock>, start: Start) -> Self {
        let Start {
            streams,
            next_serial,
            next_number,
            newest_synced,
            lengths,
            quarantine_bytes,
            pending,
            tails,
            is_changed,
        } = start;
        let engine = Engine {
            shared,
            streams,
            pending,
            written: 0,
            unacknowledged: 0,
            active: None,
            next_serial,
            synced_serial: next_serial - 1,
            next_number,
            newest_synced,
            tails,
            lengths,
            quarantine_bytes,
            unsynced_since: None,
            restore: Vec::new(),
            is_changed,
            _lock: lock,
        };
        engine.update_used();
        engine
    }

    fn policy(&self) -> SyncPolicy {
        self.shared.options.policy
    }

    /// Writes blocks and settled ranges as one group. Blocks are acknowledged as the policy says.
    pub(crate) fn commit(&mut self, blocks: Vec<Queued>, settled: Settled) {
        let now = self.shared.options.file_system.now();
        self.add_settled(settled);
        let has_blocks = !blocks.is_empty();
        for Queued { block, ticket, rest, mut keys, .. } in blocks {
            keys.iter_mut().for_each(|key| key.time = now);
            let state = self.streams.entry(block.stream()).or_default();
            let first = state.next;
            state.next += u64::from(block.count);
            let ticket = Some(ticket);
            self.pending.push(Entry::Block(PendingBlock { block, first, time: now, rest, keys, ticket, offset: 0 }));
        }
        // Settled ranges alone wait for the next sync; only trimming needs them on disk.
        let sync = has_blocks && self.policy() == SyncPolicy::Always;
        if self.flush(sync).is_ok() && has_blocks {
            self.shared.stats().groups += 1;
        }
        if self.must_sync() {
            let _ = self.flush(true);
        }
    }

    fn add_settled(&mut self, settled: Settled) {
        if settled.is_empty() {
            return;
        }
        for (stream, ranges) in &settled {
            let state = self.streams.entry(*stream).or_default();
            state.next = state.next.max(ranges.last() + 1);
        }
        // Together with what could not be written yet, so that a full disk does not fill the memory.
        match self.pending[self.written..].last_mut() {
            Some(Entry::Settled(waiting)) => {
                settled.iter().for_each(|(stream, ranges)| waiting.entry(*stream).or_default().extend(ranges));
            }
            _ => self.pending.push(Entry::Settled(settled)),
        }
    }

    /// How long the writer may wait before the next sync is due.
    pub(crate) fn sync_due(&self) -> Option<Duration> {
        self.unsynced_since.map(|since| UNSYNCED_FOR.saturating_sub(since.elapsed()))
    }

    pub(crate) fn must_sync(&self) -> bool {
        let unsynced = self.active.as_ref().map_or(0, |active| active.length - active.synced);
        unsynced >= UNSYNCED_BYTES || self.sync_due().is_some_and(|left| left.is_zero())
    }

    /// Writes all that is pending, and syncs it if asked to. After a failure the same entries go to a new segment: a sync
    /// that failed is never repeated on its file, because the kernel may have dropped the pages.
    ///
    /// # Errors
    ///
    /// If blocks were given back. What was acknowledged before stays pending.
    pub(crate) fn flush(&mut self, sync: bool) -> Result<(), LogError> {
        let mut cause = None;
        for _ in 0..ATTEMPTS {
            let mut result = self.write_pending();
            let is_new = self.active.as_ref().is_some_and(|active| !active.is_folder_synced && active.length > 0);
            if result.is_ok() && (sync || is_new) {
                result = self.sync_active();
            }
            match result {
                Ok(()) => return Ok(()),
                Err(Failure::Refused(error)) => {
                    // Otherwise the next try would be due at once, for as long as the disk is full.
                    self.unsynced_since = self.unsynced_since.map(|_| Instant::now());
                    // An attempt before may have left the group in another segment.
                    return Err(self.give_back(Full::NoSpace, cause.is_none(), error));
                }
                Err(Failure::Unknown(error)) => {
                    self.give_up_segment();
                    cause = Some(error);
                }
            }
        }
        let error = cause.unwrap_or_else(|| io::ErrorKind::Other.into());
        // Some file systems find out only at a sync that there is no space.
        let full = if is_no_space(&error) { Full::NoSpace } else { Full::Failing };
        Err(self.give_back(full, false, error))
    }

    fn write_pending(&mut self) -> Result<(), Failure> {
        if self.written == self.pending.len() {
            return Ok(());
        }
        let size: u64 = self.pending[self.written..].iter().map(Entry::size).sum();
        let limit = self.shared.options.segment_bytes;
        if self.active.as_ref().is_some_and(|active| active.has_blocks && active.length + size > limit) {
            // All of a segment is synced before the next one starts: damage in it is then known to be loss.
            self.sync_active()?;
            self.active = None;
        }
        if self.active.is_none() {
            self.create_segment()?;
        }
        self.write_group(self.pending.len() - self.written)
    }

    /// Writes the next `entries` pending entries behind the active segment.
    pub(crate) fn write_group(&mut self, entries: usize) -> Result<(), Failure> {
        let beginning = self.active.as_ref().is_some_and(|active| active.length == 0).then(|| self.beginning());
        let Some(active) = &mut self.active else { return Ok(()) };
        let group = &mut self.pending[self.written..self.written + entries];
        let options = &self.shared.options;
        let serials = Serials { next: self.next_serial, synced: self.synced_serial, now: options.file_system.now() };
        let context = self.shared.context(active.key);
        let encoded = active.encode(context, group, &self.shared.catalog(), beginning.as_ref(), serials);
        if let Err(error) = active.file.write_at(&encoded.bytes, active.length) {
            return Err(self.undo_write(error));
        }
        let has_blocks = group.iter().any(|entry| matches!(entry, Entry::Block(_)));
        for (entry, offset) in group.iter_mut().zip(&encoded.offsets) {
            if let Entry::Block(block) = entry {
                block.offset = *offset;
            }
        }
        self.next_serial = encoded.next_serial;
        active.wrote(encoded, has_blocks);
        self.lengths.insert(active.key, active.length);
        let waiting = group.iter().filter_map(PendingBlock::of).filter(|block| block.ticket.is_some());
        self.unacknowledged += waiting.map(PendingBlock::size_with_keys).sum::<u64>();
        self.written += entries;
        self.update_used();
        self.unsynced_since.get_or_insert_with(Instant::now);
        if self.policy() == SyncPolicy::Os {
            let from = self.written - entries;
            self.publish(from, self.written);
        }
        Ok(())
    }

    /// Syncs the active segment, and its folder the first time.
    fn sync_active(&mut self) -> Result<(), Failure> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.synced == active.length && active.is_folder_synced {
            return Ok(());
        }
        let started = Instant::now();
        active.file.sync_data().map_err(Failure::Unknown)?;
        let took = started.elapsed();
        self.shared.stats().syncs.record(took);
        if let Some(on_sync) = &self.shared.options.on_sync {
            on_sync(took);
        }
        if !active.is_folder_synced {
            let options = &self.shared.options;
            options.file_system.sync_folder(&options.folder).map_err(Failure::Unknown)?;
            active.is_folder_synced = true;
        }
        active.synced = active.length;
        let key = active.key;
        self.newest_synced = Some(key);
        self.synced_serial = self.next_serial - 1;
        self.unsynced_since = None;
        if self.policy() == SyncPolicy::Always {
            self.publish(0, self.written);
        } else {
            self.restore = self.shared.catalog().places_of(key);
        }
        for entry in self.pending.drain(..self.written) {
            match entry {
                Entry::Block(block) => {
                    let state = self.streams.entry(block.block.stream()).or_default();
                    state.durable_next = state.durable_next.max(block.appended().last + 1);
                }
                Entry::Settled(settled) => {
                    for (stream, ranges) in settled {
                        let state = self.streams.entry(stream).or_default();
                        state.durable_next = state.durable_next.max(ranges.last() + 1);
                        state.durable_settled.extend(&ranges);
                    }
                }
                Entry::Moved(_) => {}
            }
        }
        self.written = 0;
        self.cut_tails();
        Ok(())
    }

    /// Lets readers see written entries, and acknowledges them.
    fn publish(&mut self, from: usize, to: usize) {
        let Some(active) = &self.active else { return };
        let (mut blocks, mut bytes) = (0, 0);
        let mut catalog = self.shared.catalog();
        for entry in &self.pending[from..to] {
            if let Entry::Block(pending) = entry {
                let appended = pending.appended();
                let added = Added {
                    first: appended.first,
                    last: appended.last,
                    offset: pending.offset,
                    bytes: pending.size(),
                    time: pending.time,
                };
                catalog.add(active.key, pending.block.stream(), added);
            }
        }
        catalog.files.entry(active.key).or_default().length = active.length;
        drop(catalog);
        let written = self.pending[from..to].iter().filter_map(PendingBlock::of);
        let new: Vec<KeyRecord> = written.flat_map(|block| block.keys.clone()).collect();
        if !new.is_empty() {
            let now = self.shared.options.file_system.now();
            let mut keys = self.shared.keys();
            new.into_iter().for_each(|key| keys.insert(key, now));
        }
        self.shared.readable.notify();
        let mut acknowledged = Vec::new();
        let mut counted = 0;
        for block in self.pending[from..to].iter_mut().filter_map(PendingBlock::of_mut) {
            if let Some(ticket) = block.ticket.take() {
                blocks += 1;
                bytes += block.block.bytes.len() as u64;
                counted += block.size_with_keys();
                acknowledged.push((ticket, block.appended()));
            }
        }
        // Before the caller hears of it: the next block must find the space that is there.
        self.unacknowledged -= counted;
        self.release(counted);
        acknowledged.into_iter().for_each(|(ticket, appended)| ticket.send(Ok(appended)));
        let mut stats = self.shared.stats();
        stats.appended_blocks += blocks;
        stats.appended_bytes += bytes;
    }

    /// Blocks of so many bytes, with headers, do not wait for the writer any more: they are stored, or given back.
    pub(crate) fn release(&self, bytes: u64) {
        // Whoever waits for space would look again after each settled range.
        if bytes == 0 {
            return;
        }
        let mut intake = self.shared.intake();
        intake.bytes -= bytes;
        self.update_used();
        drop(intake);
        self.shared.space.notify();
    }
}
