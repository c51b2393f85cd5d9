//! Owns the options of the durable intake.
//! Must not know how they are used.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use batchsql_core::Schema;
use batchsql_log::{Options, Progress, SyncPolicy};

/// Where rows are kept until they are written, and how.
///
/// ```
/// use batchsql_durable::DurableOptions;
/// let options = DurableOptions::new("/var/lib/app/intake").disk_bytes(20 << 30);
/// # let _ = options;
/// ```
#[derive(Clone)]
#[must_use]
pub struct DurableOptions {
    pub(crate) folder: PathBuf,
    pub(crate) log: Options,
    pub(crate) policy: SyncPolicy,
    pub(crate) partitions: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) window_bytes: usize,
    pub(crate) schemas: Vec<Schema>,
    pub(crate) accept_gaps: bool,
    pub(crate) dead_letters: Option<PathBuf>,
    pub(crate) exactly_once: Option<String>,
    pub(crate) sabotage: Option<Sabotage>,
}

/// What waits for the writer of the log, at least.
const LEAST_QUEUE_BYTES: u64 = 16 << 20;

/// A defect on purpose: tests must find it.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "only for the tests of this crate")]
pub enum Sabotage {
    /// A row is acknowledged before the log has it.
    AcknowledgeEarly,
    /// A row is settled before it has its outcome.
    SettleEarly,
}

impl fmt::Debug for DurableOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableOptions")
            .field("folder", &self.folder)
            .field("log", &self.log)
            .field("schemas", &self.schemas.len())
            .field("accept_gaps", &self.accept_gaps)
            .field("dead_letters", &self.dead_letters)
            .field("exactly_once", &self.exactly_once)
            .finish_non_exhaustive()
    }
}

impl DurableOptions {
    /// Keeps rows in this folder, which is created if it is missing: the log in `log`, rejected rows in
    /// `dead-letters.ndjson`, and in `ORDER` which rows keep their order. The folder must be on a local disk that survives the
    /// machine's restart, and one process at a time can use it. The folder is the identity: the same folder is the same log,
    /// whatever the other options are.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        const PARTITIONS: u32 = 8;
        const SEGMENT_BYTES: u64 = 64 << 20;
        const WINDOW_BYTES: usize = 1 << 20;
        let folder = folder.into();
        let log = Options::new(folder.join("log")).partitions(PARTITIONS).segment_bytes(SEGMENT_BYTES);
        // The intake gathers rows by itself. Partitions are many, so the window of each is small.
        let log = log.group_delay(Duration::ZERO).window_bytes(WINDOW_BYTES as u64).queue_bytes(SEGMENT_BYTES);
        Self {
            folder,
            log,
            policy: SyncPolicy::Always,
            partitions: PARTITIONS,
            segment_bytes: SEGMENT_BYTES,
            window_bytes: WINDOW_BYTES,
            schemas: Vec::new(),
            accept_gaps: false,
            dead_letters: None,
            exactly_once: None,
            sabotage: None,
        }
    }

    /// When a submit returns. Default: [`SyncPolicy::Always`], after `fdatasync`.
    pub fn sync_policy(mut self, policy: SyncPolicy) -> Self {
        self.policy = policy;
        self.log = self.log.sync_policy(policy);
        self
    }

    /// Partitions of each table; default 8. Rows of one key are in one partition, and partitions are read independently of
    /// each other. It changes only while no rows wait.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self.log = self.log.partitions(partitions);
        self
    }

    /// What the log may take on disk, in bytes; default 10 GiB, at least four segments. When it is full,
    /// [`PipelineConfig::when_full`](batchsql_core::PipelineConfig::when_full) applies.
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.log = self.log.disk_bytes(bytes);
        self
    }

    /// The free space of the disk below which no row is accepted, in bytes; default 256 MiB, 0 switches it off: then a disk without
    /// any space refuses a start after a crash, and no space is given back, until some is free. 64 MiB are enough for both.
    pub fn min_free_bytes(mut self, bytes: u64) -> Self {
        self.log = self.log.min_free_bytes(bytes);
        self
    }

    /// How long rows that have ended stay in the log, to be exported, for example after the database was restored from a backup:
    /// [`IntakeFolder::export_all`](crate::tools::IntakeFolder::export_all). It is counted from the last row that was stored in
    /// the same file, and rows that wait stay in any case. Default: zero, a file is removed when all of its rows have ended.
    ///
    /// They are a part of [`disk_bytes`](Self::disk_bytes). When new rows need the space, or the disk has less than
    /// [`min_free_bytes`](Self::min_free_bytes), the oldest ones are removed before their time.
    pub fn keep_for(mut self, keep_for: Duration) -> Self {
        self.log = self.log.keep_for(keep_for);
        self
    }

    /// The size of the files of the log, in bytes; default 64 MiB. A row must fit into half of one.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        // One group after the other, of half a segment at most, waits for the writer of the log.
        self.log = self.log.segment_bytes(bytes).queue_bytes(bytes.max(LEAST_QUEUE_BYTES));
        self
    }

    /// Bytes that are read ahead of what has been written, for each partition; default 1 MiB. As much of what was just appended
    /// is kept in memory, so that it need not be read back. A block that is in memory counts with 256 bytes and 128 bytes for each
    /// column beside its values, also if it has only one row.
    pub fn window_bytes(mut self, bytes: u64) -> Self {
        self.window_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.log = self.log.window_bytes(bytes);
        self
    }

    /// Declares a schema of this program. Rows that wait in the log are written with the declared schema of their table, in
    /// place of the rule that they were submitted with: needed when a rule has changed, and for rules with SQL text
    /// ([`Expr::raw`](batchsql_core::Expr::raw),
    /// [`on_partial_index`](batchsql_core::Conflict::on_partial_index)), which is never taken from the disk. It is also
    /// checked at the start. Other rows are written with the rule that they were submitted with.
    ///
    /// Rows are in order by the key of the rule that they were submitted with, so they are never written with another key: their
    /// partition stops. If the key has changed, declare the schema from before too, as long as rows of it wait; the table needs
    /// the unique indexes of both.
    pub fn schema(mut self, schema: &Schema) -> Self {
        self.schemas.push(schema.clone());
        self
    }

    /// How many keys of requests are known, and for how long: see
    /// [`submit_group_once`](crate::DurableBatchSql::submit_group_once). Default: 10,000, and an hour. The oldest ones are removed for new
    /// ones. They are in memory, and a copy of them is at the start of each file of the log: about 100 bytes each, with the longest
    /// keys 360. They have a quarter of [`segment_bytes`](Self::segment_bytes) at most.
    pub fn keys(mut self, most: usize, keep_for: Duration) -> Self {
        self.log = self.log.keys(most, keep_for);
        self
    }

    /// Goes on behind rows that are missing in the log (damage, or a file that was removed), or that somebody has passed over by
    /// moving a position in the database; default false: their partition stops, and
    /// [`health`](crate::DurableBatchSql::health) shows it. Set it for one start, after you have looked into `log/quarantine`, or
    /// know that the position cannot be set back.
    pub fn accept_gaps(mut self, accept: bool) -> Self {
        self.accept_gaps = accept;
        self
    }

    /// The file of rejected rows; default `dead-letters.ndjson` in the folder. Each line has an `id` that is unique for the
    /// row; a row may have several lines with one id.
    pub fn dead_letters(mut self, path: impl Into<PathBuf>) -> Self {
        self.dead_letters = Some(path.into());
        self
    }

    /// Is called while the start reads the log after an unclean end, on a thread of its own.
    pub fn on_progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.log = self.log.on_progress(callback);
        self
    }

    /// Writes every row exactly once, on PostgreSQL, MySQL, MariaDB and SQLite: how far each partition is, is stored in the
    /// table `batchsql_positions` of the database, in the transaction of the rows. After a crash or a lost reply the database
    /// says what was written. Default: at least once.
    ///
    /// `source` names the intake in that table, at most 100 characters. It is a part of the identity of the folder, as its id
    /// is: it must stay the same. The table is created if it is missing. Each partition writes one transaction at a time, so the
    /// number of [`partitions`](Self::partitions) limits how many connections a table uses. `Ordering` and `flush_interval` do
    /// not apply: each partition keeps its order, and writes what is there.
    ///
    /// It is chosen for the life of the folder: a start with rows that wait from before, and a start without it later, are
    /// refused. It needs [`SyncPolicy::Always`]. Rules that count repeats ([`Expr::add`](batchsql_core::Expr::add)) are accepted.
    pub fn exactly_once(mut self, source: impl Into<String>) -> Self {
        self.exactly_once = Some(source.into());
        self
    }

    /// The file system of the log, for tests with one that fails.
    #[doc(hidden)]
    pub fn file_system(mut self, file_system: std::sync::Arc<dyn batchsql_log::FileSystem>) -> Self {
        self.log = self.log.file_system(file_system);
        self
    }

    /// A defect on purpose.
    #[doc(hidden)]
    pub fn sabotage(mut self, sabotage: Sabotage) -> Self {
        self.sabotage = Some(sabotage);
        self
    }

    pub(crate) fn dead_letter_path(&self) -> PathBuf {
        self.dead_letters.clone().unwrap_or_else(|| self.folder.join("dead-letters.ndjson"))
    }
}
