//! Owns the handle of a log: opening it, settling and closing.
//! Must not know how bytes are written and read, or how blocks are accepted (`append`).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, UNIX_EPOCH},
};

use crate::{
    completion::{self, Completion},
    engine::Engine,
    error::{LogError, LogErrorKind},
    folder,
    format::{record, segment::VERSION},
    model::{SchemaId, Stream, TableId},
    options::Options,
    reader::{From, Reader},
    recover::{self, Mode, Recovered},
    recovery::Recovery,
    shared::{Intake, Shared},
    space::Space,
    stats::LogStats,
    upkeep, writer,
};

/// The longest name of a table, in bytes.
const LONGEST_NAME: usize = 64 << 10;

/// A segment log. Clones are handles of the same log; when the last one is dropped, it is closed.
#[derive(Clone)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    thread: Arc<Thread>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// Stops the writer thread with the last handle. Readers do not keep it alive.
struct Thread {
    shared: Arc<Shared>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        let _ = request_close(&self.shared).wait();
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            // A panic of the thread has been printed; no caller is left that could get it.
            let _ = handle.join();
        }
    }
}

impl Log {
    /// Opens the log of a folder, and creates it if the folder is missing or empty. After an unclean end it reads all
    /// segments; see [`Options::on_progress`]. Blocks the thread.
    ///
    /// # Errors
    ///
    /// If an option cannot be used, another process uses the folder, a newer version wrote it, it has files of something
    /// else, the partitions differ while rows are not settled, or the file system fails. Nothing was removed.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// use batchsql_log::{Block, From, Log, Next, Options};
    ///
    /// let (log, recovery) = Log::open(Options::new(folder.path().join("log")).min_free_bytes(0))?;
    /// assert!(recovery.damages.is_empty() && recovery.gaps.is_empty());
    /// let (table, schema) = (log.table("events")?, log.schema(b"id, note")?);
    /// let ticket = log.append(Block { table, partition: 0, schema, count: 2, bytes: b"two rows".to_vec() })?;
    /// assert_eq!(ticket.wait()?.last, 2);
    ///
    /// let mut reader = log.reader(table, 0, From::Unsettled)?;
    /// let Next::Block(block) = reader.next()? else { panic!("there is a block") };
    /// assert_eq!(block.bytes, b"two rows");
    /// log.settle(table, 0, block.first..=block.last())?;
    /// log.close().wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(options: Options) -> Result<(Log, Recovery), LogError> {
        options.check()?;
        let lock = folder::lock(&options)?;
        let (mut identity, is_new) = folder::identity(&options)?;
        let Recovered { catalog, keys, start, mut recovery } =
            recover::recover(&options, identity.incarnation, Mode::Repair)?;
        recovery.is_new = is_new;
        if identity.version < VERSION {
            // Before the first segment of this version: an older program would not know its groups.
            identity.version = VERSION;
            folder::write(&options, &identity)?;
        }
        let shared = Arc::new(Shared::new(options, identity.incarnation, catalog, keys));
        let streams = recovery
            .partitions
            .iter()
            .map(|state| (Stream { table: state.table.0, partition: state.partition }, state.next));
        shared.intake().opened = streams.collect();
        {
            let mut stats = shared.stats();
            stats.recovered_blocks = recovery.blocks;
            stats.quarantined = recovery.damages.len() as u64;
            stats.quarantined_bytes = recovery.damages.iter().map(|damage| damage.length).sum();
        }
        let mut engine = Engine::new(Arc::clone(&shared), lock, start);
        upkeep::write_at_start(&mut engine).map_err(|error| error.at_start(&shared.options.folder))?;
        if identity.partitions != shared.options.partitions {
            let has_rows = shared.catalog().streams.values().any(|view| view.first_unsettled().is_some());
            if has_rows {
                let message = format!(
                    "the log in {} has {} partitions and rows that are not settled; open it with this number, or settle all \
                     rows before it is changed to {}",
                    shared.options.folder.display(),
                    identity.partitions,
                    shared.options.partitions
                );
                return Err(LogError::new(LogErrorKind::Partitions, message));
            }
            identity.partitions = shared.options.partitions;
            folder::write(&shared.options, &identity)?;
        }
        let handle = Mutex::new(Some(writer::spawn(engine, &shared)?));
        let thread = Arc::new(Thread { shared: Arc::clone(&shared), handle });
        Ok((Log { shared, thread }, recovery))
    }

    /// The number of a table. The same name has the same number for the life of the folder.
    ///
    /// # Errors
    ///
    /// If the name is empty or longer than 64 KiB.
    pub fn table(&self, name: &str) -> Result<TableId, LogError> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            let message = format!("the name of a table has {} bytes; use 1 to {LONGEST_NAME}", name.len());
            return Err(LogError::new(LogErrorKind::Invalid, message));
        }
        Ok(TableId(self.shared.catalog().tables.intern(name)))
    }

    /// The number of a schema: bytes that the log keeps beside blocks, and does not look into.
    ///
    /// # Errors
    ///
    /// If it does not fit into a segment.
    pub fn schema(&self, bytes: &[u8]) -> Result<SchemaId, LogError> {
        let limit = self.shared.options.segment_bytes / 2;
        if record::size(bytes.len()) > limit {
            let message = format!("a schema has {} bytes; half a segment has {limit}", bytes.len());
            return Err(LogError::new(LogErrorKind::Invalid, message));
        }
        Ok(SchemaId(self.shared.catalog().schemas.intern(bytes)))
    }

    /// Reads one partition of a table back. Several readers are independent of each other.
    ///
    /// # Errors
    ///
    /// If the first sequence is 0.
    pub fn reader(&self, table: TableId, partition: u32, from: From) -> Result<Reader, LogError> {
        if matches!(from, From::Sequence(0)) {
            return Err(LogError::new(LogErrorKind::Invalid, "sequences start at 1"));
        }
        Ok(Reader::new(Arc::clone(&self.shared), Stream { table: table.0, partition }, from))
    }

    /// Rows have ended: they need not be read again, and their segments may be removed. It is on disk with the next group,
    /// after 100 ms, or with [`sync`](Self::sync); rows whose end is not on disk are read again after a crash. To accept a
    /// [`Gap`](crate::Gap), settle it.
    ///
    /// # Errors
    ///
    /// If the range is empty, starts at 0, or goes beyond what was stored.
    pub fn settle(
        &self,
        table: TableId,
        partition: u32,
        sequences: std::ops::RangeInclusive<u64>,
    ) -> Result<(), LogError> {
        let (first, last) = sequences.into_inner();
        let stream = Stream { table: table.0, partition };
        let end = self.shared.catalog().streams.get(&stream).map_or(1, |view| view.end);
        if first == 0 || first > last || last >= end {
            let message = format!("cannot settle {first} to {last}; rows 1 to {} are stored", end - 1);
            return Err(LogError::new(LogErrorKind::Invalid, message));
        }
        self.add_settled(stream, first, last);
        Ok(())
    }

    /// Which of these rows are settled, as ranges that rise.
    pub fn settled(
        &self,
        table: TableId,
        partition: u32,
        rows: std::ops::RangeInclusive<u64>,
    ) -> Vec<std::ops::RangeInclusive<u64>> {
        let (first, last) = rows.into_inner();
        let stream = Stream { table: table.0, partition };
        let catalog = self.shared.catalog();
        catalog.streams.get(&stream).map_or_else(Vec::new, |view| view.settled.within(first, last))
    }

    /// The end of the settled rows that begin with this one; `None` if it is not settled.
    pub fn settled_from(&self, table: TableId, partition: u32, sequence: u64) -> Option<u64> {
        let stream = Stream { table: table.0, partition };
        let missing = self.shared.catalog().streams.get(&stream)?.settled.first_missing(sequence);
        (missing > sequence).then(|| missing - 1)
    }

    /// All rows up to `sequence` have ended, also those that this log has never had: for a position that is stored outside
    /// and is higher than the end of the log. The next row gets a higher sequence.
    ///
    /// # Errors
    ///
    /// If the sequence is the highest possible, or it is above the end that the log had when it was opened, and rows of the
    /// partition were appended since: their sequences were used before, and they would be skipped.
    pub fn resume_above(&self, table: TableId, partition: u32, sequence: u64) -> Result<(), LogError> {
        if sequence >= u64::MAX - 1 {
            return Err(LogError::new(LogErrorKind::Invalid, "no sequence is left above this one"));
        }
        if sequence == 0 {
            return Ok(());
        }
        let stream = Stream { table: table.0, partition };
        // Blocks that are in the queue get their sequences after what is settled here.
        let mut intake = self.shared.intake();
        if intake.opened.get(&stream).is_none_or(|next| sequence >= *next) {
            // Not the end as it is now: rows that were appended since may be above the sequence by now.
            if intake.begun.contains(&stream) {
                let message = format!("rows were appended since the log was opened, with sequences up to {sequence}");
                return Err(LogError::new(LogErrorKind::Invalid, message));
            }
            intake.opened.insert(stream, sequence + 1);
        }
        self.queue_settled(intake, stream, 1, sequence);
        self.note_settled(stream, 1, sequence);
        Ok(())
    }

    fn add_settled(&self, stream: Stream, first: u64, last: u64) {
        self.note_settled(stream, first, last);
        self.queue_settled(self.shared.intake(), stream, first, last);
    }

    fn note_settled(&self, stream: Stream, first: u64, last: u64) {
        let mut catalog = self.shared.catalog();
        let view = catalog.streams.entry(stream).or_default();
        view.settled.insert(first, last);
        view.end = view.end.max(last + 1);
        drop(catalog);
        self.shared.readable.notify();
    }

    fn queue_settled(&self, mut intake: MutexGuard<'_, Intake>, stream: Stream, first: u64, last: u64) {
        intake.settled.entry(stream).or_default().insert(first, last);
        let is_first = intake.settled_at.is_none();
        intake.settled_at.get_or_insert_with(Instant::now);
        drop(intake);
        if is_first {
            self.shared.work.notify_one();
        }
    }

    /// The rows of a partition will not be settled for a long time, for example because their table is parked; or they will
    /// again. Rows that are set aside are copied out of segments that nothing else keeps, so that those can be removed.
    pub fn set_aside(&self, table: TableId, partition: u32, is_aside: bool) {
        let stream = Stream { table: table.0, partition };
        self.shared.catalog().streams.entry(stream).or_default().is_aside = is_aside;
        self.shared.intake().wants_upkeep = true;
        self.shared.work.notify_one();
    }

    /// Completes when all that was appended and settled before is on disk, and what can be removed is removed.
    pub fn sync(&self) -> Completion<()> {
        let (sender, completion) = completion::pair(LogError::closed);
        let mut intake = self.shared.intake();
        if intake.is_closed {
            sender.send(Err(LogError::closed()));
            return completion;
        }
        intake.syncs.push(sender);
        drop(intake);
        self.shared.work.notify_one();
        completion
    }

    /// Completes when a block of this many bytes would be accepted. Others may take the space first.
    pub fn space(&self, bytes: usize) -> Space {
        Space::new(Arc::clone(&self.shared), record::size(bytes))
    }

    /// The bytes of the disk that are free; `None` if it does not say so. It asks the file system, which may block the thread.
    pub fn free_bytes(&self) -> Option<u64> {
        let options = &self.shared.options;
        options.file_system.free_bytes(&options.folder).ok().flatten()
    }

    /// The free bytes of the disk below which no block is accepted: [`Options::min_free_bytes`].
    pub fn min_free_bytes(&self) -> u64 {
        self.shared.options.min_free_bytes
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> LogStats {
        let mut stats = self.shared.stats().clone();
        stats.bytes = self.shared.used.load(std::sync::atomic::Ordering::SeqCst);
        stats.bytes_limit = self.shared.options.disk_bytes;
        {
            let catalog = self.shared.catalog();
            stats.segments = catalog.files.keys().filter(|key| key.side.is_none()).count() as u64;
            stats.side_segments = catalog.files.len() as u64 - stats.segments;
            let oldest = catalog.streams.values().filter_map(|view| view.first_unsettled()).map(|place| place.oldest);
            stats.oldest_unsettled = oldest.min().map(|millis| UNIX_EPOCH + Duration::from_millis(millis));
            let unsettled = |view: &crate::catalog::StreamView| (view.end - 1).saturating_sub(view.settled.count());
            stats.unsettled_rows = catalog.streams.values().map(unsettled).sum();
        }
        stats.keys = self.shared.keys().len() as u64;
        let intake = self.shared.intake();
        // What was refused may have space by now.
        let is_refused = intake.refused.is_some_and(|bytes| self.shared.check_space(&intake, bytes).is_err());
        stats.is_full = intake.full.is_some() || is_refused;
        drop(intake);
        stats
    }

    /// The random id of the folder.
    pub fn incarnation(&self) -> [u8; 16] {
        self.shared.incarnation
    }

    /// Writes all that was appended and settled, and a record that spares the next start from reading the segments. Later
    /// calls on all handles fail, but for `close`, which has the outcome of the first. Readers can continue.
    ///
    /// It fails if that cannot be written, or the file by which a start finds that the end of the log is missing, for example because
    /// the folder was removed.
    ///
    /// # Cancel safety
    ///
    /// The log closes also if the completion is dropped.
    pub fn close(&self) -> Completion<()> {
        request_close(&self.thread.shared)
    }
}

fn request_close(shared: &Shared) -> Completion<()> {
    let (sender, completion) = completion::pair(LogError::closed);
    let mut intake = shared.intake();
    intake.is_closed = true;
    if let Some(outcome) = intake.ended.clone() {
        drop(intake);
        sender.send(outcome);
        return completion;
    }
    intake.closers.push(sender);
    drop(intake);
    shared.work.notify_one();
    shared.space.notify();
    completion
}
