//! Owns the numbers that the log reports.
//! Must not know who reads them.

use std::time::{Duration, SystemTime};

/// What the log has and has done. Counters start at 0 with each [`Log::open`](crate::Log::open).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Bytes of all files of the log, with side segments and quarantine.
    pub bytes: u64,
    /// The limit of `bytes`: [`disk_bytes`](crate::Options::disk_bytes).
    pub bytes_limit: u64,
    /// Segments of the log itself.
    pub segments: u64,
    /// Segments with the rows of tables that are set aside.
    pub side_segments: u64,
    /// Rows that are not settled.
    pub unsettled_rows: u64,
    /// When the oldest rows that are not settled were written. It is the time of the first block of their table in their
    /// segment, so it may be too early.
    pub oldest_unsettled: Option<SystemTime>,
    /// Blocks that were appended.
    pub appended_blocks: u64,
    /// Their bytes, without headers.
    pub appended_bytes: u64,
    /// Writes of groups of blocks.
    pub groups: u64,
    /// How long syncs took.
    pub syncs: SyncLatency,
    /// Writes and syncs that failed, each of which cost a segment.
    pub failures: u64,
    /// Damaged parts that were found, at the start and later.
    pub quarantined: u64,
    /// Bytes of these parts.
    pub quarantined_bytes: u64,
    /// Keys of groups that are known, some of which may be too old.
    pub keys: u64,
    /// Blocks that were found at the start.
    pub recovered_blocks: u64,
    /// Files that were removed because all their rows were settled.
    pub trimmed: u64,
    /// The last block was refused for want of space, or the disk is full or fails.
    pub is_full: bool,
}

/// The upper bounds of the buckets of [`SyncLatency::buckets`], in microseconds. The last bucket has no bound.
pub const SYNC_BUCKETS_MICROS: [u64; 9] = [100, 250, 500, 1_000, 2_500, 10_000, 50_000, 250_000, 1_000_000];

/// How long syncs of segments took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncLatency {
    /// The number of syncs.
    pub count: u64,
    /// All together.
    pub total: Duration,
    /// The longest one.
    pub max: Duration,
    /// Syncs up to each bound of [`SYNC_BUCKETS_MICROS`], and behind the last one; each sync is in one bucket.
    pub buckets: [u64; SYNC_BUCKETS_MICROS.len() + 1],
}

impl SyncLatency {
    pub(crate) fn record(&mut self, took: Duration) {
        self.count += 1;
        self.total += took;
        self.max = self.max.max(took);
        let micros = took.as_micros();
        let bucket = SYNC_BUCKETS_MICROS.iter().position(|&bound| micros <= u128::from(bound));
        self.buckets[bucket.unwrap_or(SYNC_BUCKETS_MICROS.len())] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sync_is_in_one_bucket() {
        let mut latency = SyncLatency::default();
        [50, 100, 101, 2_000_000].iter().for_each(|micros| latency.record(Duration::from_micros(*micros)));
        assert_eq!(latency.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((latency.count, latency.max), (4, Duration::from_secs(2)));
    }
}
