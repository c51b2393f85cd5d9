//! Owns the results of all runs: sums for each database and fault, `chaos.json`, and the table for a terminal.
//! Must not know how a run is carried out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::conductor::Outcome;
use super::job::Pool;
use super::plan::Plan;
use super::sample::longest_stall;
use crate::database::DatabaseName;

/// A finished run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) plan: Plan,
    /// The message of an error: the run was not carried out.
    pub(super) outcome: Result<Outcome, String>,
}

impl Run {
    /// Whether everything was as it must be.
    pub(super) fn passed(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|outcome| outcome.checked.count == 0)
    }

    /// What is wrong, with what repeats the run.
    pub(super) fn complaints(&self) -> Vec<String> {
        let run =
            format!("{} {} run {} ({})", self.plan.database.name(), self.plan.name, self.plan.number, pool(&self.plan));
        match &self.outcome {
            Err(error) => vec![format!("{run}: not carried out: {error}")],
            Ok(outcome) => outcome.checked.violations.iter().map(|violation| format!("{run}: {violation}")).collect(),
        }
    }
}

pub(super) fn pool(plan: &Plan) -> &'static str {
    match plan.pool {
        Pool::Own => "own pool",
        Pool::User => "user's pool",
    }
}

/// A fault that was not caused on a database.
#[derive(Debug, Serialize)]
pub(super) struct LeftOut {
    pub(super) database: DatabaseName,
    pub(super) fault: String,
    pub(super) reason: String,
}

/// The sums of the runs of a fault on a database.
#[derive(Debug, Serialize)]
pub(super) struct Sum {
    pub(super) database: DatabaseName,
    pub(super) fault: String,
    pub(super) runs: usize,
    /// Rows that were accepted.
    pub(super) rows: u64,
    pub(super) outcomes: BTreeMap<String, u64>,
    pub(super) violations: u64,
    /// The longest time from the end of the fault to the first row that was written after it, in seconds.
    pub(super) recovery_s: Option<f64>,
    /// The longest time without a written row, from the begin of the first fault on, in seconds.
    pub(super) stall_s: f64,
    /// Rows that are in the table without a key more than once, where that is allowed.
    pub(super) doubled: u64,
    /// Runs that were not carried out.
    pub(super) errors: usize,
    pub(super) details: Vec<String>,
}

/// The results of all runs.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    pub(super) seed: u64,
    /// What repeats all of it.
    pub(super) command: String,
    pub(super) durable: bool,
    pub(super) results: Vec<Sum>,
    pub(super) left_out: Vec<LeftOut>,
}

/// Sums the runs of each database and fault, in the order of the runs.
pub(super) fn sums(runs: &[Run]) -> Vec<Sum> {
    let mut sums: Vec<Sum> = Vec::new();
    for run in runs {
        let is_of = |sum: &Sum| sum.database == run.plan.database && sum.fault == run.plan.name;
        let at = sums.iter().position(is_of).unwrap_or_else(|| {
            sums.push(Sum {
                database: run.plan.database,
                fault: run.plan.name.clone(),
                runs: 0,
                rows: 0,
                outcomes: BTreeMap::new(),
                violations: 0,
                recovery_s: None,
                stall_s: 0.0,
                doubled: 0,
                errors: 0,
                details: Vec::new(),
            });
            sums.len() - 1
        });
        let sum = &mut sums[at];
        sum.runs += 1;
        sum.details.extend(run.complaints());
        match &run.outcome {
            Err(_) => sum.errors += 1,
            Ok(outcome) => {
                sum.rows += outcome.checked.rows;
                sum.doubled += outcome.checked.doubled;
                sum.violations += outcome.checked.count;
                for (name, rows) in &outcome.checked.outcomes {
                    *sum.outcomes.entry(name.clone()).or_default() += rows;
                }
                let begin = outcome.faults.iter().map(|(_, begin, _)| *begin).min().unwrap_or(0);
                sum.stall_s = sum.stall_s.max(longest_stall(&outcome.samples, begin) as f64 / 1_000.0);
                let recovery = outcome.recovery.as_ref().map(Duration::as_secs_f64);
                sum.recovery_s = sum.recovery_s.into_iter().chain(recovery).reduce(f64::max);
            }
        }
    }
    sums
}

impl Results {
    pub(super) fn passed(&self) -> bool {
        self.results.iter().all(|sum| sum.violations == 0 && sum.errors == 0)
    }

    /// Writes `chaos.json`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join("chaos.json");
        let text = serde_json::to_string_pretty(self).context("cannot write the results as JSON")?;
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The heads of the columns, and how many of them are text.
pub(super) const HEADS: [&str; 11] =
    ["database", "fault", "runs", "rows", "written", "failed", "unknown", "doubled", "violations", "stall", "recovery"];
pub(super) const TEXT_COLUMNS: usize = 2;

impl Sum {
    fn verdict(&self) -> String {
        match (self.violations, self.errors) {
            (0, 0) => self.recovery_s.map_or_else(|| "ok".to_owned(), |seconds| format!("ok, {seconds:.2} s")),
            (0, errors) => format!("{errors} NOT CARRIED OUT"),
            (violations, _) => format!("{violations} WRONG"),
        }
    }

    /// Its cells.
    pub(super) fn cells(&self) -> [String; 11] {
        let count = |names: &[&str]| -> u64 { names.iter().filter_map(|name| self.outcomes.get(*name)).sum() };
        let violations = match self.errors {
            0 => self.violations.to_string(),
            errors => format!("{} ({errors} not carried out)", self.violations),
        };
        [
            self.database.name().to_owned(),
            self.fault.clone(),
            self.runs.to_string(),
            self.rows.to_string(),
            count(&["written", "ignored", "superseded", "acknowledged"]).to_string(),
            count(&["rejected", "expired", "purged"]).to_string(),
            count(&["unknown", "none"]).to_string(),
            self.doubled.to_string(),
            violations,
            format!("{:.2} s", self.stall_s),
            self.recovery_s.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2} s")),
        ]
    }
}

impl Results {
    /// Faults by database: whether all is well, and the recovery. The heads, and the rows.
    pub(super) fn matrix(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let mut databases: Vec<DatabaseName> = Vec::new();
        let mut faults: Vec<&str> = Vec::new();
        for sum in &self.results {
            if !databases.contains(&sum.database) {
                databases.push(sum.database);
            }
            if !faults.contains(&sum.fault.as_str()) {
                faults.push(&sum.fault);
            }
        }
        let cell = |fault: &str, database: DatabaseName| {
            let sum = self.results.iter().find(|sum| sum.fault == fault && sum.database == database);
            sum.map_or_else(|| "-".to_owned(), Sum::verdict)
        };
        let row = |fault: &&str| {
            let cells = databases.iter().map(|database| cell(fault, *database));
            std::iter::once((*fault).to_owned()).chain(cells).collect()
        };
        let heads = std::iter::once("fault").chain(databases.iter().map(|database| database.name())).collect();
        (heads, faults.iter().map(row).collect())
    }
}

/// The tables for a terminal.
impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(HEADS);
        table.add_rows(self.results.iter().map(Sum::cells));
        let figures = table.column_iter_mut().skip(TEXT_COLUMNS);
        figures.for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        writeln!(f, "{table}")?;
        let (heads, rows) = self.matrix();
        let mut matrix = Table::new();
        matrix.load_preset(presets::UTF8_FULL_CONDENSED).set_header(heads).add_rows(rows);
        writeln!(f, "{matrix}")?;
        for LeftOut { database, fault, reason } in &self.left_out {
            writeln!(f, "left out: {fault} on {}: {reason}", database.name())?;
        }
        for detail in self.results.iter().flat_map(|sum| &sum.details) {
            writeln!(f, "WRONG  {detail}")?;
        }
        write!(f, "seed {}; to repeat: {}", self.seed, self.command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::check::{Checked, Violation, Wrong};

    fn run(number: u32, outcome: Result<Outcome, String>) -> Run {
        let plan = Plan {
            database: DatabaseName::Redis,
            name: "half-open".to_owned(),
            number,
            seed: 0,
            pool: Pool::Own,
            is_durable: false,
            exactly_once: false,
            at_least_once: false,
            sabotage: None,
            in_namespace: false,
            timeline: Vec::new(),
        };
        Run { plan, outcome }
    }

    fn outcome(recovery: u64, violations: &[Violation]) -> Outcome {
        let outcomes = BTreeMap::from([("written".to_owned(), 9), ("unknown".to_owned(), 1)]);
        let (violations, count) = (violations.to_vec(), violations.len() as u64);
        let checked = Checked { rows: 10, outcomes, doubled: 0, violations, count, ..Checked::default() };
        Outcome { checked, recovery: Some(Duration::from_millis(recovery)), ..Outcome::default() }
    }

    fn results(runs: &[Run]) -> Results {
        Results { seed: 3, command: "again".to_owned(), durable: false, results: sums(runs), left_out: Vec::new() }
    }

    #[test]
    fn runs_are_summed() {
        let results = results(&[run(0, Ok(outcome(500, &[]))), run(1, Ok(outcome(250, &[])))]);
        assert!(results.passed());
        let json = serde_json::to_value(&results).unwrap();
        let sum = &json["results"][0];
        assert_eq!((&sum["database"], &sum["fault"], &sum["runs"]), (&"redis".into(), &"half-open".into(), &2.into()));
        assert_eq!((&sum["rows"], &sum["outcomes"]["written"]), (&20.into(), &18.into()));
        assert_eq!((&sum["violations"], &sum["recovery_s"]), (&0.into(), &0.5.into()));
        let (heads, rows) = results.matrix();
        assert_eq!(
            (heads, rows),
            (vec!["fault", "redis"], vec![vec!["half-open".to_owned(), "ok, 0.50 s".to_owned()]])
        );
    }

    #[test]
    fn a_violation_and_an_error_fail_and_are_reported() {
        let violation = Violation { wrong: Wrong::Lost, detail: "row 5".to_owned() };
        let wrong = Ok(outcome(1, &[violation]));
        for (outcome, told, verdict) in
            [(wrong, "Lost: row 5", "1 WRONG"), (Err("no disk".to_owned()), "no disk", "1 NOT CARRIED OUT")]
        {
            let results = results(&[run(0, outcome)]);
            assert!(!results.passed());
            let text = results.to_string();
            assert!(text.contains(told) && text.contains("redis half-open run 0 (own pool)"), "{text}");
            assert!(text.contains("to repeat: again") && text.contains(verdict), "{text}");
        }
    }
}
