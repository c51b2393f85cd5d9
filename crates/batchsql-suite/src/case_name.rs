//! Owns the names of the cases, as on the command line and in labels.
//! Must not know what a case does.

use clap::ValueEnum;

/// The name of a case, as on the command line and in labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum CaseName {
    /// Many tasks, plain inserts into one table
    HighThroughput,
    /// Ten times as many tasks, every way to submit
    ConcurrentWorkers,
    /// Batches ten times as large, wider rows
    LargeBatch,
    /// Wide rows, small byte budget: memory stays bounded
    MemoryPressure,
    /// A steady rate over time
    LongDuration,
    /// Few keys written repeatedly; the last version wins
    DuplicateKeyUpsert,
    /// Four tables with different rules at the same time, one with every column type
    MixedTables,
    /// A real data set with NULLs and many scripts, repeated with new keys
    RealDataset,
    /// Several pipelines write the same keys in opposite orders; no row may fail by a deadlock
    ConcurrentUpserts,
    /// A column is added and another one dropped while rows are written
    SchemaChange,
}

impl CaseName {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::HighThroughput => "high_throughput",
            Self::ConcurrentWorkers => "concurrent_workers",
            Self::LargeBatch => "large_batch",
            Self::MemoryPressure => "memory_pressure",
            Self::LongDuration => "long_duration",
            Self::DuplicateKeyUpsert => "duplicate_key_upsert",
            Self::MixedTables => "mixed_tables",
            Self::RealDataset => "real_dataset",
            Self::ConcurrentUpserts => "concurrent_upserts",
            Self::SchemaChange => "schema_change",
        }
    }
}
