//! Owns how far one partition is, as other tasks see it.
//! Must not know the task that moves it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use batchsql_core::{StopReason, TableName};

/// What a partition waits for. Each has a reason of its own: the end of one wait is not that of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Its dead-letter file.
    Letters,
    /// Its table, its position, or the claim of it.
    Database,
    /// Its source can be read.
    Source,
}

/// The reasons, in the order of [`WaitsFor`]. The first one is shown: it holds up more than those behind it.
type Waits = [Option<String>; 3];

/// A partition of a table that does not go on without a person, or not now. Its rows stay in their source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoppedPartition {
    /// The table, quoted: `"events"`, `"audit"."events"`.
    pub table: String,
    /// The partition.
    pub partition: u32,
    /// What kind of reason it is; `None` if it tries again by itself.
    pub kind: Option<StopReason>,
    /// Why, and what to do.
    pub reason: String,
}

impl fmt::Display for StoppedPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} of table {}: {}", self.partition, self.table, self.reason)
    }
}

/// The name of a table as partitions and positions have it: quoted, so that no two tables have one name.
pub fn quoted_table(table: &TableName) -> String {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    match table.namespace() {
        Some(namespace) => format!("{}.{}", quote(namespace), quote(table.name())),
        None => quote(table.name()),
    }
}

/// The name of a table as a pipeline reports it, from its quoted name: `"audit"."events"` is `audit.events`.
pub fn unquoted_table(name: &str) -> String {
    let (mut text, mut is_inside) = (String::with_capacity(name.len()), false);
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_inside && letters.next_if_eq(&'"').is_some() => text.push('"'),
            '"' => is_inside = !is_inside,
            _ => text.push(letter),
        }
    }
    text
}

/// How far one partition is. Its sequences may have holes, so a number of rows is the answer of its source.
#[derive(Debug)]
pub struct PartitionState {
    table: String,
    partition: u32,
    settled: AtomicU64,
    read: AtomicU64,
    /// Milliseconds since 1970.
    oldest: AtomicU64,
    /// Blocks that were read and are not settled.
    blocks: AtomicUsize,
    is_held: AtomicBool,
    stopped: Mutex<Option<(StopReason, String)>>,
    waits: Mutex<Waits>,
}

impl PartitionState {
    /// A partition of a table, whose name is quoted (`"events"`). Its rows up to `settled` have ended; 0 for none.
    pub fn new(table: impl Into<String>, partition: u32, settled: u64) -> Self {
        Self {
            table: table.into(),
            partition,
            settled: AtomicU64::new(settled),
            read: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            blocks: AtomicUsize::new(0),
            is_held: AtomicBool::new(false),
            stopped: Mutex::default(),
            waits: Mutex::default(),
        }
    }

    /// The table, quoted.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The number of the partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// All rows up to this sequence have ended.
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// The last sequence that was read from the source.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// When the first row that has not ended was stored: the time of its block. It says nothing if no row waits. A source
    /// that knows it before the row is read sets it with [`waits_since`](Self::waits_since).
    pub fn oldest(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.oldest.load(Ordering::Relaxed))
    }

    /// The first row that has not ended was stored at this time.
    pub fn waits_since(&self, time: SystemTime) {
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.oldest.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether rows of it may be written: exactly once, this process has claimed it; at least once, always.
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Why it does not go on without a person, if so.
    pub fn stopped(&self) -> Option<StoppedPartition> {
        let (kind, reason) = self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(self.with_reason(Some(kind), reason))
    }

    /// Why it does not go on now, if so. It tries again by itself.
    pub fn waiting(&self) -> Option<StoppedPartition> {
        let reason = self.waits().iter().flatten().next().cloned()?;
        Some(self.with_reason(None, reason))
    }

    pub(crate) fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    pub(crate) fn has_read(&self, sequence: u64) {
        self.read.fetch_max(sequence, Ordering::Relaxed);
    }

    /// How many blocks were read and are not settled.
    pub(crate) fn has_blocks(&self, blocks: usize) {
        self.blocks.store(blocks, Ordering::Release);
    }

    /// When the first block was stored that was read and is not settled. `None` if there is none.
    pub(crate) fn oldest_block(&self) -> Option<SystemTime> {
        (self.blocks.load(Ordering::Acquire) > 0).then(|| self.oldest())
    }

    pub(crate) fn settle(&self, last: u64) {
        self.settled.fetch_max(last, Ordering::AcqRel);
    }

    pub(crate) fn stop(&self, reason: Option<(StopReason, String)>) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// It waits for this, or no longer.
    pub(crate) fn wait(&self, what: WaitsFor, reason: Option<String>) {
        self.waits()[what as usize] = reason;
    }

    /// It waits for nothing.
    pub(crate) fn wait_for_nothing(&self) {
        *self.waits() = Waits::default();
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_reason(&self, kind: Option<StopReason>, reason: String) -> StoppedPartition {
        StoppedPartition { table: self.table.clone(), partition: self.partition, kind, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_one_wait_is_not_that_of_another() {
        let state = PartitionState::new("t", 0, 0);
        let shown = || state.waiting().map(|waiting| waiting.reason);
        let wait = |what, reason: Option<&str>| state.wait(what, reason.map(str::to_owned));
        wait(WaitsFor::Source, Some("source"));
        wait(WaitsFor::Database, Some("database"));
        assert_eq!(shown().as_deref(), Some("database"));
        wait(WaitsFor::Letters, Some("letters"));
        assert_eq!(shown().as_deref(), Some("letters"));
        wait(WaitsFor::Letters, None);
        assert_eq!(shown().as_deref(), Some("database"));
        wait(WaitsFor::Database, None);
        assert_eq!(shown().as_deref(), Some("source"));
        state.wait_for_nothing();
        assert_eq!(shown(), None);
    }

    #[test]
    fn no_two_tables_have_one_name() {
        assert_eq!(quoted_table(&TableName::new("a.b")), "\"a.b\"");
        assert_eq!(quoted_table(&TableName::qualified("a", "b")), "\"a\".\"b\"");
        assert_eq!(quoted_table(&TableName::new("a\".\"b")), "\"a\"\".\"\"b\"");
    }
}
