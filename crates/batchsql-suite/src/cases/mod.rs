//! Owns what a case is: its settings, its rows, and what must be in the database afterwards.
//! Must not know databases or how a run is reported.

mod change;
mod contention;
mod dataset;
mod load;
mod pressure;
mod throughput;
mod upsert;

use std::collections::BTreeMap;

use anyhow::Result;
use async_trait::async_trait;
use batchsql::{CloseReport, PipelineConfig, Schema};
use clap::ValueEnum;

use crate::cli::Options;
use crate::database::{Database, TableSpec};
use crate::digest::Digest;

pub use load::Load;

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
    /// Few keys written again and again; the last version wins
    DuplicateKeyUpsert,
    /// Four tables with different rules at once, one with every column type
    MixedTables,
    /// A real data set with NULLs and many scripts, repeated with new keys
    RealDataset,
    /// Several pipelines write the same keys in opposite orders; no deadlock shows
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

/// How a case runs with the given options.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The pipeline's settings.
    pub pipeline: PipelineConfig,
    /// Tasks that submit at the same time.
    pub workers: usize,
    /// Rows that each of them submits.
    pub rows_per_worker: usize,
    /// The bound of the process's memory, where the case checks one.
    pub memory_bound: Option<MemoryBound>,
    /// What the report tells beyond the options.
    pub parameters: BTreeMap<String, String>,
}

/// How much memory a case may use beyond what the process had at its start.
#[derive(Debug, Clone)]
pub struct MemoryBound {
    /// Bytes.
    pub bytes: u64,
    /// How it comes about.
    pub note: String,
}

impl Settings {
    /// The settings with which a case runs.
    ///
    /// # Errors
    /// The options cannot work, as they are or as the case changes them.
    pub fn of(options: &Options, case: &dyn Case) -> Result<Self> {
        let mut settings = Self {
            pipeline: options.pipeline_config()?,
            workers: options.workers,
            rows_per_worker: options.records_per_worker,
            memory_bound: None,
            parameters: BTreeMap::new(),
        };
        case.adjust(&mut settings);
        settings.pipeline.validate()?;
        Ok(settings)
    }

    /// Rows over all workers.
    pub fn rows(&self) -> usize {
        self.workers.saturating_mul(self.rows_per_worker)
    }

    fn note(&mut self, name: &str, value: impl ToString) {
        self.parameters.insert(name.to_owned(), value.to_string());
    }
}

/// What must be in the database after a case.
#[derive(Debug, Default)]
pub struct Expected {
    /// The content of each table.
    pub tables: Vec<(Schema, Digest)>,
    /// Rows that must end as `Ignored`.
    pub ignored: u64,
    /// What became of rows in other pipelines than the load's.
    pub elsewhere: Vec<CloseReport>,
}

/// One case.
#[async_trait]
pub trait Case: Send + Sync {
    /// What it does and what it expects, in a sentence or two.
    fn description(&self) -> &'static str;

    /// The tables it writes to.
    fn tables(&self) -> Vec<TableSpec>;

    /// Changes the settings of the options to those of the case.
    fn adjust(&self, settings: &mut Settings) {
        let _ = settings;
    }

    /// Submits rows until all are submitted or the load says stop; what must then be there. The database is for
    /// cases that change their table meanwhile.
    async fn drive(&self, load: &Load, database: &dyn Database) -> Result<Expected>;

    /// Checks beyond the content of the tables; each finding is an error of the case.
    fn check(&self, expected: &Expected, report: &CloseReport) -> Vec<String> {
        let ignored = report.balance.ignored();
        if ignored == expected.ignored {
            return Vec::new();
        }
        vec![format!("{ignored} rows were ignored, expected {}", expected.ignored)]
    }
}
