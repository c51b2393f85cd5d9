//! Owns what a worker says about itself.
//! Must not know how it is found out.

use std::time::SystemTime;

use batchsql_feed::{FeedCounts, StoppedPartition};

use crate::partitions::PartitionStats;
use crate::stray::StrayMessages;

/// What a worker does, at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerStats {
    /// The partitions that this worker has, by table and number.
    pub partitions: Vec<PartitionStats>,
    /// Partitions that do not go on without a person.
    pub stopped: Vec<StoppedPartition>,
    /// Partitions that cannot be written now, and try again by themselves.
    pub waiting: Vec<StoppedPartition>,
    /// Rows since the start.
    pub counts: FeedCounts,
    /// Why the worker cannot look after its partitions now, if so: the server or the database does not answer.
    pub trouble: Option<String>,
    /// The setting of the database with which its crash may lose written rows, and what to do. `None`: there is none, it is not
    /// known yet, or rows are written exactly once, which such a setting stops.
    pub lossy_setting: Option<String>,
    /// Messages that no worker reads, as of the last look at the stream.
    pub stray: StrayMessages,
    /// Messages that were written to the file of foreign ones since the start, each as a whole.
    pub foreign_messages: u64,
}

impl WorkerStats {
    /// When the oldest message was published that is not written, as far as it is known.
    pub fn oldest(&self) -> Option<SystemTime> {
        self.partitions.iter().filter_map(|partition| partition.oldest).min()
    }

    /// Messages of the partitions of this worker that are not written.
    pub fn unsettled(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.unsettled).sum()
    }

    /// Of these, messages that were not delivered yet.
    pub fn pending(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.pending).sum()
    }
}
