//! Owns the results of all runs: `scale.json`, and the table for a terminal.
//! Must not know how a run is carried out.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::database::DatabaseName;

/// What a measurement has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) rows: u64,
    /// Rows that are not in the table.
    pub(super) lost: u64,
    /// Rows that are there more than once.
    pub(super) doubled: u64,
    /// Rows per second.
    pub(super) rate: f64,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Entry {
    pub(super) database: DatabaseName,
    /// 0: a pipeline in one process that is fed from memory.
    pub(super) workers: u32,
    pub(super) guarantee: &'static str,
    /// What was caused, in this order; none in a measurement.
    pub(super) faults: Vec<&'static str>,
    /// Partitions that workers took over from others that were killed or paused; `None` in a measurement, and at least once, where all
    /// workers read all partitions.
    pub(super) takeovers: Option<u64>,
    pub(super) rows: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// Whether a doubled row breaks the guarantee.
    #[serde(skip)]
    pub(super) may_double: bool,
    /// `None` in a run with faults, whose load is fixed.
    pub(super) rows_per_s: Option<f64>,
    /// Rows per second as a ratio to those of the pipeline that is fed from memory.
    pub(super) of_memory: Option<f64>,
    /// Everything that is wrong, also the order of keys.
    pub(super) violations: u64,
    pub(super) details: Vec<String>,
    /// Why the run was not carried out.
    pub(super) error: Option<String>,
}

impl Entry {
    pub(super) fn passed(&self) -> bool {
        let doubled = if self.may_double { 0 } else { self.doubled };
        self.error.is_none() && self.lost + doubled + self.violations == 0
    }
}

/// The results of all runs.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    pub(super) seed: u64,
    pub(super) command: String,
    pub(super) partitions: u32,
    pub(super) results: Vec<Entry>,
}

impl Results {
    /// Whether every run was carried out, and no row is lost, or doubled where it must not be.
    pub(super) fn passed(&self) -> bool {
        self.results.iter().all(Entry::passed)
    }

    /// Writes `scale.json`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join("scale.json");
        let text = serde_json::to_string_pretty(self).context("cannot write the results as JSON")?;
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "database",
            "workers",
            "guarantee",
            "faults",
            "takeovers",
            "rows",
            "lost",
            "doubled",
            "rows/s",
            "of memory",
            "verdict",
        ]);
        for entry in &self.results {
            let workers = if entry.workers == 0 { "from memory".to_owned() } else { entry.workers.to_string() };
            let number =
                |number: Option<f64>, digits: usize| number.map_or_else(|| "-".to_owned(), |n| format!("{n:.digits$}"));
            table.add_row([
                entry.database.name().to_owned(),
                workers,
                entry.guarantee.to_owned(),
                entry.faults.len().to_string(),
                entry.takeovers.map_or_else(|| "-".to_owned(), |takeovers| takeovers.to_string()),
                entry.rows.to_string(),
                entry.lost.to_string(),
                entry.doubled.to_string(),
                number(entry.rows_per_s, 0),
                number(entry.of_memory, 2),
                if entry.passed() { "ok" } else { "FAILED" }.to_owned(),
            ]);
        }
        for column in [1, 3, 4, 5, 6, 7, 8, 9] {
            table.column_mut(column).expect("the header has it").set_cell_alignment(CellAlignment::Right);
        }
        write!(f, "{table}")?;
        for entry in &self.results {
            let of = format!("{} with {} workers", entry.database.name(), entry.workers);
            entry.details.iter().chain(&entry.error).try_for_each(|detail| write!(f, "\n{of}: {detail}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            database: DatabaseName::Postgres,
            workers: 2,
            guarantee: "exactly once",
            faults: vec!["worker-killed"],
            takeovers: Some(3),
            rows: 9,
            lost: 0,
            doubled: 0,
            may_double: false,
            rows_per_s: None,
            of_memory: None,
            violations: 0,
            details: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn what_is_lost_or_doubled_fails() {
        assert!(entry().passed());
        assert!(!Entry { lost: 1, ..entry() }.passed());
        assert!(!Entry { doubled: 1, ..entry() }.passed());
        assert!(Entry { doubled: 1, may_double: true, ..entry() }.passed());
        assert!(!Entry { violations: 1, ..entry() }.passed());
        assert!(!Entry { error: Some("no server".to_owned()), ..entry() }.passed());
    }

    #[test]
    fn the_report_has_the_documented_members() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results { seed: 1, command: String::new(), partitions: 16, results: vec![entry()] };
        results.write(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("scale.json")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let members =
            ["database", "workers", "guarantee", "faults", "takeovers", "rows", "lost", "doubled", "rows_per_s"];
        for member in members {
            assert!(value["results"][0].get(member).is_some(), "{member}");
        }
        assert!(results.to_string().contains("worker"));
    }
}
