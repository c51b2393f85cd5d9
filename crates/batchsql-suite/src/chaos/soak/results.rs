//! Owns the results of a soak: the judgement of each figure, `soak.json`, and the table for a terminal.
//! Must not know how a run is carried out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::conductor::{Disturbance, Outcome};
use super::reading::{Figure, Reading};
use super::trend::{Point, Trend};
use crate::database::DatabaseName;

/// A figure of a soak, and its trend.
#[derive(Debug, Serialize)]
pub(super) struct Judged {
    pub(super) figure: &'static str,
    pub(super) unit: &'static str,
    /// The levels at the begin and at the end of the measured time, and the highest reading of calm times.
    pub(super) begin: f64,
    pub(super) end: f64,
    pub(super) highest: f64,
    pub(super) growth: f64,
    pub(super) tolerance: f64,
    pub(super) rises: bool,
}

/// The result of the soak of a database.
#[derive(Debug, Serialize)]
pub(super) struct Soaked {
    pub(super) database: DatabaseName,
    /// The measured time, in seconds.
    pub(super) seconds: f64,
    /// Rows that were written, ignored or superseded, with those of the warm-up.
    pub(super) written: u64,
    /// How often each fault was caused, with the warm-up.
    pub(super) faults: BTreeMap<String, u32>,
    /// The longest time from the end of a fault to the first row that was written after it, in seconds.
    pub(super) recovery_s: f64,
    pub(super) figures: Vec<Judged>,
    /// What is wrong, besides figures that rise.
    pub(super) wrong: Vec<String>,
}

/// The results of all databases.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    pub(super) mode: &'static str,
    /// The time that was asked for, in seconds.
    pub(super) duration_s: u64,
    pub(super) results: Vec<Soaked>,
    /// Databases whose soak was not carried out, and why.
    pub(super) errors: BTreeMap<String, String>,
}

/// Judges a soak.
pub(super) fn judge(database: DatabaseName, outcome: &Outcome) -> Soaked {
    let (from, to) = outcome.measured;
    let calm = calm(&outcome.readings, &outcome.disturbances);
    let mut wrong = outcome.wrong.clone();
    let mut figures = Vec::new();
    for figure in Figure::ALL {
        let points = points(&calm, figure);
        if points.is_empty() {
            // The system or the mode does not have it.
            continue;
        }
        match Trend::of(&points, from, to, figure.tolerance()) {
            Some(trend) => figures.push(judged(figure, &trend)),
            None => wrong.push(format!("too few readings of {} between faults; use a longer duration", figure.name())),
        }
    }
    if figures.is_empty() {
        wrong.push("no figure was read".to_owned());
    }
    let mut faults = BTreeMap::new();
    outcome.disturbances.iter().for_each(|caused| *faults.entry(caused.fault.name()).or_default() += 1);
    Soaked {
        database,
        seconds: to.saturating_sub(from) as f64 / 1_000.0,
        written: outcome.readings.last().map_or(0, |last| last.written),
        faults,
        recovery_s: outcome.recovery.as_secs_f64(),
        figures,
        wrong,
    }
}

fn judged(figure: Figure, trend: &Trend) -> Judged {
    Judged {
        figure: figure.name(),
        unit: figure.unit(),
        begin: trend.begin,
        end: trend.end,
        highest: trend.highest,
        growth: trend.growth(),
        tolerance: trend.tolerance,
        rises: trend.rises(),
    }
}

/// The readings while nothing was disturbed: a fault changes the figures, so they are not compared.
fn calm(readings: &[Reading], disturbances: &[Disturbance]) -> Vec<Reading> {
    let is_disturbed = |at: u64| disturbances.iter().any(|known| (known.begin..=known.end).contains(&at));
    readings.iter().filter(|reading| !is_disturbed(reading.at)).copied().collect()
}

/// The readings of a figure.
pub(super) fn points(readings: &[Reading], figure: Figure) -> Vec<Point> {
    readings.iter().filter_map(|reading| Some((reading.at, figure.of(reading)?))).collect()
}

impl Soaked {
    /// Everything that is wrong.
    pub(super) fn complaints(&self) -> Vec<String> {
        let rises = self.figures.iter().filter(|judged| judged.rises).map(|judged| {
            let Judged { figure, unit, begin, end, tolerance, .. } = judged;
            format!("{figure} rises from {begin:.1} to {end:.1} {unit}, by more than {tolerance:.1}")
        });
        let all = rises.chain(self.wrong.iter().cloned());
        all.map(|text| format!("{}: {text}", self.database.name())).collect()
    }

    /// The lines of the table of figures.
    pub(super) fn rows(&self) -> Vec<[String; 8]> {
        let row = |judged: &Judged| {
            [
                self.database.name().to_owned(),
                judged.figure.to_owned(),
                judged.unit.to_owned(),
                format!("{:.2}", judged.begin),
                format!("{:.2}", judged.end),
                format!("{:.2}", judged.highest),
                format!("{:+.2} of {:.2}", judged.growth, judged.tolerance),
                if judged.rises { "RISES" } else { "flat" }.to_owned(),
            ]
        };
        self.figures.iter().map(row).collect()
    }
}

/// The heads of the table of figures, and how many of its columns are text.
pub(super) const HEADS: [&str; 8] =
    ["database", "figure", "unit", "begin", "end", "highest", "growth of tolerance", "result"];
pub(super) const TEXT_COLUMNS: usize = 3;

impl Results {
    /// Whether every figure is flat, and nothing else is wrong.
    pub(super) fn passed(&self) -> bool {
        self.errors.is_empty() && self.results.iter().all(|soaked| soaked.complaints().is_empty())
    }

    /// Everything that is wrong.
    pub(super) fn complaints(&self) -> Vec<String> {
        let errors = self.errors.iter().map(|(database, error)| format!("{database}: not carried out: {error}"));
        self.results.iter().flat_map(Soaked::complaints).chain(errors).collect()
    }

    /// Writes `soak.json`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join("soak.json");
        let text = serde_json::to_string_pretty(self).context("cannot write the results as JSON")?;
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The table for a terminal.
impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(HEADS);
        table.add_rows(self.results.iter().flat_map(Soaked::rows));
        let figures = table.column_iter_mut().skip(TEXT_COLUMNS);
        figures.for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        writeln!(f, "{table}")?;
        for soaked in &self.results {
            let Soaked { database, seconds, written, recovery_s, faults, .. } = soaked;
            let faults: u32 = faults.values().sum();
            writeln!(
                f,
                "{}, {}: {seconds:.0} s, {written} rows written, {faults} faults, slowest recovery {recovery_s:.2} s",
                database.name(),
                self.mode
            )?;
        }
        self.complaints().iter().try_for_each(|complaint| writeln!(f, "WRONG  {complaint}"))?;
        write!(f, "{}", if self.passed() { "passed: every figure is flat" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::fault::Fault;

    /// Two minutes: calm for 10 s, then a fault for 10 s in which memory is high. `heap` is that of calm times, by second.
    fn outcome(heap: impl Fn(u64) -> u64) -> Outcome {
        let disturbances = (0..6_u64).map(|turn| {
            let begin = (turn * 20 + 10) * 1_000;
            Disturbance { fault: Fault::HalfOpen, begin, end: begin + 9_999 }
        });
        let read = |second: u64| {
            let is_calm = second % 20 < 10;
            let heap = if is_calm { heap(second) } else { 900 } << 20;
            Reading { at: second * 1_000, heap: Some(heap), tasks: Some(9), written: second, ..Reading::default() }
        };
        Outcome {
            readings: (0..121).map(read).collect(),
            disturbances: disturbances.collect(),
            measured: (0, 121_000),
            ..Outcome::default()
        }
    }

    fn results(outcome: &Outcome) -> Results {
        let results = vec![judge(DatabaseName::Sqlite, outcome)];
        Results { mode: "in memory", duration_s: 120, results, errors: BTreeMap::new() }
    }

    #[test]
    fn calm_times_are_judged() {
        let results = results(&outcome(|_| 50));
        assert!(results.passed(), "{results}");
        let json = serde_json::to_value(&results).unwrap();
        let soaked = &json["results"][0];
        assert_eq!((&soaked["database"], &soaked["faults"]["half-open"]), (&"sqlite".into(), &6.into()));
        let heap = &soaked["figures"][0];
        assert_eq!((&heap["figure"], &heap["rises"], &heap["highest"]), (&"heap".into(), &false.into(), &50.0.into()));
        // What the system does not have is left out.
        assert_eq!(soaked["figures"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn what_rises_and_what_is_wrong_fails_and_is_reported() {
        let leak = outcome(|second| 50 + second / 4);
        let mut wrong = outcome(|_| 50);
        wrong.wrong.push("4 rows are left in the log".to_owned());
        let mut blind = outcome(|_| 50);
        blind.readings.retain(|reading| reading.at < 60_000);
        let mut empty = outcome(|_| 50);
        empty.readings.clear();
        let table = [
            (leak, "sqlite: heap rises from 55.0 to 75.0 MiB, by more than 2.8"),
            (wrong, "sqlite: 4 rows are left in the log"),
            (blind, "sqlite: too few readings of heap between faults"),
            (empty, "sqlite: no figure was read"),
        ];
        for (outcome, told) in table {
            let results = results(&outcome);
            assert!(!results.passed());
            let text = results.to_string();
            assert!(text.contains(told) && text.ends_with("FAILED"), "{text}");
        }
    }

    #[test]
    fn a_soak_that_was_not_carried_out_fails() {
        let errors = BTreeMap::from([("redis".to_owned(), "no server".to_owned())]);
        let results = Results { mode: "durable", duration_s: 12, results: Vec::new(), errors };
        assert!(!results.passed());
        assert!(results.to_string().contains("redis: not carried out: no server"), "{results}");
    }
}
