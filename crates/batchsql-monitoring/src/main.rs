//! `batchsql-monitoring lint` checks the files; `batchsql-monitoring panels` queries a Prometheus for every panel.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use batchsql_monitoring::{Choice, lint, panels};
use clap::{Parser, Subcommand};

/// The dashboard, relative to the root of the repository.
const DASHBOARD: &str = "monitoring/grafana/dashboards/batchsql-performance.json";

/// Checks of the files that BatchSQL ships for Prometheus and Grafana.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check every query, rule, alert, runbook and dashboard of the repository
    Lint {
        /// The root of the repository
        #[arg(long, default_value = ".")]
        root: PathBuf,
    },
    /// Query a Prometheus for every panel of the dashboard; fails if one has no data
    Panels {
        /// Address of Prometheus
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9092")]
        prometheus: String,
        /// The dashboard
        #[arg(long, value_name = "FILE", default_value = DASHBOARD)]
        dashboard: PathBuf,
        /// How long to wait until every panel has data, for example 60s
        #[arg(long, default_value = "0s", value_parser = duration)]
        wait: Duration,
        /// Database to select, a regular expression; default: all
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// Test case to select, a regular expression; default: all
        #[arg(long, value_name = "NAME")]
        test_case: Option<String>,
        /// Time range of the dashboard
        #[arg(long, default_value = "15m", value_parser = duration)]
        window: Duration,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 60s or 5m"))
}

fn main() -> ExitCode {
    run(Cli::parse().verb).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    let failed = match verb {
        Verb::Lint { root } => {
            let folder = root.join("monitoring");
            anyhow::ensure!(
                folder.is_dir(),
                "{} is not a folder; pass the root of the repository with --root",
                folder.display()
            );
            let report = lint(&root)?;
            for finding in &report.findings {
                eprintln!("{finding}");
            }
            let (files, rules, queries) = (report.files, report.rules, report.queries);
            println!("{files} files, {rules} rules, {queries} queries: {} findings", report.findings.len());
            !report.findings.is_empty()
        }
        Verb::Panels { prometheus, dashboard, wait, database, test_case, window } => {
            let text = std::fs::read_to_string(&dashboard)
                .with_context(|| format!("cannot read {}; pass its path with --dashboard", dashboard.display()))?;
            let all = Choice::default();
            let choice = Choice {
                database: database.unwrap_or(all.database),
                test_case: test_case.unwrap_or(all.test_case),
                window,
                rate_interval: all.rate_interval,
            };
            let panels = panels(&prometheus, &text, &choice, wait)?;
            print!("{panels}");
            let missing = panels.missing().count();
            println!("{} queries, {missing} without data", panels.answers.len());
            missing > 0
        }
    };
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
