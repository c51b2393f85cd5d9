//! Owns the mapping from the name of a case to the case.
//! Must not know how cases run.

use super::case::Case;
use super::{change, contention, dataset, pressure, throughput, upsert};
use crate::case_name::CaseName;

impl CaseName {
    /// The case.
    pub fn case(self) -> Box<dyn Case> {
        match self {
            Self::HighThroughput => Box::new(throughput::HighThroughput),
            Self::ConcurrentWorkers => Box::new(throughput::ConcurrentWorkers),
            Self::LargeBatch => Box::new(throughput::LargeBatch),
            Self::LongDuration => Box::new(throughput::LongDuration),
            Self::MemoryPressure => Box::new(pressure::MemoryPressure),
            Self::DuplicateKeyUpsert => Box::new(upsert::DuplicateKeyUpsert),
            Self::MixedTables => Box::new(upsert::MixedTables),
            Self::RealDataset => Box::new(dataset::RealDataset),
            Self::ConcurrentUpserts => Box::new(contention::ConcurrentUpserts),
            Self::SchemaChange => Box::new(change::SchemaChange),
        }
    }
}
