//! Owns the options of a log and their checks.
//! Must not know how they are used.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    error::{LogError, LogErrorKind},
    fs::{FileSystem, RealFileSystem},
    keys::KeyLimits,
    recovery::Progress,
};

/// When an append is complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// After `fdatasync`: survives a power loss.
    #[default]
    Always,
    /// After the write to the operating system: survives the end of the process, not a power loss. Synced by the writer
    /// thread after a second or 8 MiB; writes wait meanwhile.
    Os,
}

/// The callback of [`Options::on_progress`].
type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// The callback of [`Options::on_sync`].
type OnSync = Arc<dyn Fn(Duration) + Send + Sync>;

/// How a log is opened.
///
/// ```
/// use std::time::Duration;
///
/// let options = batchsql_log::Options::new("/var/lib/app/log")
///     .partitions(8)
///     .disk_bytes(20 << 30)
///     .keep_for(Duration::from_secs(3_600));
/// # let _ = options;
/// ```
#[derive(Clone)]
#[must_use]
pub struct Options {
    pub(crate) folder: PathBuf,
    pub(crate) policy: SyncPolicy,
    pub(crate) partitions: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) min_free_bytes: u64,
    pub(crate) queue_bytes: u64,
    pub(crate) group_bytes: u64,
    pub(crate) group_delay: Duration,
    pub(crate) settle_delay: Duration,
    pub(crate) keep_for: Duration,
    pub(crate) window_bytes: u64,
    pub(crate) most_keys: usize,
    pub(crate) keep_keys_for: Duration,
    pub(crate) file_system: Arc<dyn FileSystem>,
    pub(crate) on_progress: Option<OnProgress>,
    pub(crate) on_sync: Option<OnSync>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("folder", &self.folder)
            .field("policy", &self.policy)
            .field("partitions", &self.partitions)
            .field("segment_bytes", &self.segment_bytes)
            .field("disk_bytes", &self.disk_bytes)
            .field("min_free_bytes", &self.min_free_bytes)
            .field("queue_bytes", &self.queue_bytes)
            .field("keep_for", &self.keep_for)
            .finish_non_exhaustive()
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

impl Options {
    /// The log in this folder, which is created if it is missing. The folder is the name of the log: the same folder is
    /// the same log, whatever the other options are.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Options {
            folder: folder.into(),
            policy: SyncPolicy::Always,
            partitions: 8,
            segment_bytes: 64 * MIB,
            disk_bytes: 10 << 30,
            min_free_bytes: 256 * MIB,
            queue_bytes: 16 * MIB,
            group_bytes: MIB,
            group_delay: Duration::from_millis(2),
            settle_delay: Duration::from_millis(100),
            keep_for: Duration::ZERO,
            window_bytes: 4 * MIB,
            most_keys: 10_000,
            keep_keys_for: Duration::from_secs(3_600),
            file_system: Arc::new(RealFileSystem),
            on_progress: None,
            on_sync: None,
        }
    }

    /// When an append is complete. Default: [`SyncPolicy::Always`].
    pub fn sync_policy(mut self, policy: SyncPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The number of partitions of each table. Default: 8. It changes only while all rows are settled.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// The size at which a new segment starts, in bytes. Default: 64 MiB. A block must fit into a segment.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// What the files of the log may have together, in bytes. Default: 10 GiB; at least four segments. A sixteenth of it, at
    /// most 16 MiB, is kept for what the log writes about itself.
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.disk_bytes = bytes;
        self
    }

    /// The free space of the disk below which no block is accepted, in bytes. Default: 256 MiB; 0 switches it off. It is not
    /// known on Windows, where only [`disk_bytes`](Self::disk_bytes) counts.
    ///
    /// It is also the space for what the log writes about itself. On a disk without it, with 0 or because others have taken it, a
    /// start after a crash is refused (what the crash may not have left on disk is written again before anything is read), and
    /// the segment that is being written is not given back, although its rows are settled, until some space is free. 64 MiB are
    /// enough with the default `segment_bytes`.
    pub fn min_free_bytes(mut self, bytes: u64) -> Self {
        self.min_free_bytes = bytes;
        self
    }

    /// Blocks that wait for the writer thread, in bytes. Default: 16 MiB. A larger block is accepted while nothing waits.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// How long settled rows can be read again, from the last block of their segment on. Default: zero. When new rows need the
    /// space ([`disk_bytes`](Self::disk_bytes), [`min_free_bytes`](Self::min_free_bytes)), the oldest of these segments are
    /// removed before their time.
    pub fn keep_for(mut self, keep_for: Duration) -> Self {
        self.keep_for = keep_for;
        self
    }

    /// Bytes of blocks that a reader returns before some of them must be settled. Default: 4 MiB. One block is always
    /// returned.
    pub fn window_bytes(mut self, bytes: u64) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// How long a block may wait for others to be written with, under load. Default: 2 ms. Zero is for callers that gather
    /// blocks by themselves, with [`Log::append_all`](crate::Log::append_all).
    pub fn group_delay(mut self, delay: Duration) -> Self {
        self.group_delay = delay;
        self
    }

    /// How long settled ranges may wait for a block to be written with. Default: 100 ms. What was not written before a crash
    /// is read again.
    pub fn settle_delay(mut self, delay: Duration) -> Self {
        self.settle_delay = delay;
        self
    }

    /// How many keys of groups are known, and for how long: [`Log::append_group`](crate::Log::append_group). Default: 10,000, and
    /// an hour. The oldest ones are removed for new ones. Each segment starts with a copy of them, and they are in memory, so
    /// they may have a quarter of [`segment_bytes`](Self::segment_bytes) together.
    pub fn keys(mut self, most: usize, keep_for: Duration) -> Self {
        (self.most_keys, self.keep_keys_for) = (most, keep_for);
        self
    }

    /// Is called while [`Log::open`](crate::Log::open) reads the segments after an unclean end, on its thread.
    pub fn on_progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(callback));
        self
    }

    /// Is called after each sync of a segment that succeeded, with how long it took, for histograms:
    /// [`LogStats::syncs`](crate::LogStats::syncs) has the same syncs in fixed buckets. It runs on the thread that writes
    /// the log, so it must not block or panic.
    pub fn on_sync(mut self, callback: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.on_sync = Some(Arc::new(callback));
        self
    }

    /// Another file system, for tests.
    pub fn file_system(mut self, file_system: Arc<dyn FileSystem>) -> Self {
        self.file_system = file_system;
        self
    }

    /// What only the records of the log itself may use of `disk_bytes`.
    pub(crate) fn reserve(&self) -> u64 {
        (self.disk_bytes / 16).min(16 * MIB)
    }

    pub(crate) fn key_limits(&self) -> KeyLimits {
        let bytes = usize::try_from(self.segment_bytes / 4).unwrap_or(usize::MAX);
        KeyLimits { most: self.most_keys, bytes, keep_for: self.keep_keys_for }
    }

    /// Checks the options as the start of a log does, and touches no folder.
    ///
    /// # Errors
    /// The first option that cannot work ([`LogErrorKind::Invalid`]), and how to correct it.
    pub fn check(&self) -> Result<(), LogError> {
        let invalid = |message: String| Err(LogError::new(LogErrorKind::Invalid, message));
        if self.partitions == 0 {
            return invalid("partitions is 0; a table has at least one partition".to_owned());
        }
        if !(4 * KIB..=1 << 30).contains(&self.segment_bytes) {
            return invalid(format!("segment_bytes is {}; set it from 4 KiB to 1 GiB", self.segment_bytes));
        }
        if self.disk_bytes / 4 < self.segment_bytes {
            let (disk, segment) = (self.disk_bytes, self.segment_bytes);
            return invalid(format!("disk_bytes is {disk}; set it to at least four times segment_bytes ({segment})"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_refused_one_by_one() {
        let check = |options: Options, word: &str| {
            let error = options.check().expect_err(word);
            assert_eq!(error.kind(), LogErrorKind::Invalid);
            assert!(error.to_string().contains(word), "{error}");
        };
        assert!(Options::new("x").check().is_ok());
        check(Options::new("x").partitions(0), "partitions");
        check(Options::new("x").segment_bytes(1), "segment_bytes");
        check(Options::new("x").disk_bytes(64 << 20), "disk_bytes");
    }
}
