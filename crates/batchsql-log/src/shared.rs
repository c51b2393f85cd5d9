//! Owns what callers, readers and the writer thread share: the queue, the catalogue and the counters.
//! Must not know how bytes are written.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{
    active::keys_size,
    catalog::Catalog,
    completion::Sender,
    error::{LogError, LogErrorKind},
    format::{keys::KeyRecord, names, record, snapshot::Settled},
    keys::Keys,
    model::{Appended, Block, FileKey, Stream},
    options::Options,
    stats::LogStats,
    watch::Watch,
};

/// No lock is taken while another one is held.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) incarnation: [u8; 16],
    intake: Mutex<Intake>,
    pub(crate) work: Condvar,
    catalog: Mutex<Catalog>,
    /// Of groups that were acknowledged.
    keys: Mutex<Keys>,
    /// Rows may be read, were settled, or files changed.
    pub(crate) readable: Watch,
    /// Bytes were freed, or the queue is shorter.
    pub(crate) space: Watch,
    stats: Mutex<LogStats>,
    /// Bytes of all files, without those of blocks that are written and not acknowledged: the intake counts them.
    pub(crate) used: AtomicU64,
}

/// What waits for the writer thread.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    pub(crate) blocks: VecDeque<Queued>,
    /// Of the blocks that wait or are being written, until they are acknowledged or given back.
    pub(crate) bytes: u64,
    /// Partitions whose blocks the writer has taken since the log was opened.
    pub(crate) begun: HashSet<Stream>,
    /// The next rows of the partitions without the blocks of this process: as the log was opened, or resumed above since.
    pub(crate) opened: HashMap<Stream, u64>,
    pub(crate) settled: Settled,
    pub(crate) settled_at: Option<Instant>,
    pub(crate) syncs: Vec<Sender<()>>,
    pub(crate) closers: Vec<Sender<()>>,
    /// A block was refused, or somebody waits for space.
    pub(crate) wants_space: bool,
    /// The bytes of the last block, if it was refused for want of space.
    pub(crate) refused: Option<u64>,
    /// A table was set aside.
    pub(crate) wants_upkeep: bool,
    pub(crate) full: Option<Full>,
    /// No block is accepted any more.
    pub(crate) is_closed: bool,
    /// How closing went; the writer has ended.
    pub(crate) ended: Option<Result<(), LogError>>,
}

#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) block: Block,
    /// Blocks of its group behind it in the queue: they are taken together.
    pub(crate) rest: u32,
    /// Those of the group, with its first block.
    pub(crate) keys: Vec<KeyRecord>,
    pub(crate) ticket: Sender<Appended>,
    pub(crate) since: Instant,
}

impl Queued {
    /// With the header, and the keys.
    pub(crate) fn bytes(&self) -> u64 {
        record::size(self.block.bytes.len()) + keys_size(self.keys.iter().map(KeyRecord::size))
    }
}

/// Why the writer accepts no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    MinFree,
    NoSpace,
    Failing,
}

impl Full {
    pub(crate) fn error(self) -> LogError {
        let message = match self {
            Full::MinFree => "the disk of the log has less than min_free_bytes left; free some space",
            Full::NoSpace => "the disk of the log is full; free some space",
            Full::Failing => "the disk of the log fails; see the system log of the machine",
        };
        LogError::new(LogErrorKind::Full, message)
    }
}

impl Shared {
    pub(crate) fn new(options: Options, incarnation: [u8; 16], catalog: Catalog, keys: Keys) -> Self {
        Shared {
            options,
            incarnation,
            intake: Mutex::default(),
            work: Condvar::new(),
            catalog: Mutex::new(catalog),
            keys: Mutex::new(keys),
            readable: Watch::default(),
            space: Watch::default(),
            stats: Mutex::default(),
            used: AtomicU64::new(0),
        }
    }

    pub(crate) fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> MutexGuard<'_, LogStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn path(&self, key: FileKey) -> PathBuf {
        self.options.folder.join(names::segment(key))
    }

    pub(crate) fn context(&self, key: FileKey) -> record::Context {
        record::Context { incarnation: self.incarnation, tag: key.tag() }
    }

    /// Whether `bytes` more may be queued, with headers.
    pub(crate) fn check_space(&self, intake: &Intake, bytes: u64) -> Result<(), LogError> {
        if intake.is_closed {
            return Err(LogError::closed());
        }
        if let Some(full) = intake.full {
            return Err(full.error());
        }
        let full = |message: String| Err(LogError::new(LogErrorKind::Full, message));
        let Options { disk_bytes, queue_bytes, .. } = self.options;
        let used = self.used.load(Ordering::SeqCst);
        if used + intake.bytes + bytes + self.options.reserve() > disk_bytes {
            return full(format!("the log has {used} bytes of its disk_bytes ({disk_bytes}); settle rows or raise it"));
        }
        if intake.bytes > 0 && intake.bytes + bytes > queue_bytes {
            return Err(LogError::queue_full(format!(
                "{} bytes wait for the writer of the log; queue_bytes is {queue_bytes}",
                intake.bytes
            )));
        }
        Ok(())
    }
}
