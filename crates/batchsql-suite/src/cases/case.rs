//! Owns what a case is: its settings, its rows, and what must be in the database afterwards.
//! Must not know databases or how a run is reported.

use std::collections::BTreeMap;

use anyhow::Result;
use async_trait::async_trait;
use batchsql::{CloseReport, Schema};

use super::load::Load;
use super::settings::Settings;
use crate::cli::Options;
use crate::database::{Database, TableSpec};
use crate::digest::Digest;

impl Settings {
    /// The settings with which a case runs.
    ///
    /// # Errors
    /// The options, or the options as changed by the case, are invalid.
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
}

/// What must be in the database after a case.
#[derive(Debug, Default)]
pub struct Expected {
    /// The content of each table.
    pub tables: Vec<(Schema, Digest)>,
    /// Rows that must end as `Ignored`.
    pub ignored: u64,
    /// The reports of pipelines other than the load's.
    pub elsewhere: Vec<CloseReport>,
}

/// One case.
#[async_trait]
pub trait Case: Send + Sync {
    /// What the case does and expects, in one or two sentences.
    fn description(&self) -> &'static str;

    /// The tables it writes to.
    fn tables(&self) -> Vec<TableSpec>;

    /// Changes the settings of the options to those of the case.
    fn adjust(&self, settings: &mut Settings) {
        let _ = settings;
    }

    /// Submits rows until all are submitted or the load is over; returns the expected content. The database is for
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
