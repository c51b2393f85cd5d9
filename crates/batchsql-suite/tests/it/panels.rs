//! Owns the check that the shipped dashboard has data: a real Prometheus scrapes a real run.
//! Must not know the queries of panels.

use std::time::{Duration, Instant};

use batchsql_monitoring::{Choice, panels};
use batchsql_testserver::{Kind, Server};

use crate::support::Suite;

pub(crate) const DASHBOARD: &str = include_str!("../../../../monitoring/grafana/dashboards/batchsql-performance.json");

/// A changing table for errors and parked tables, a steady load for rates; SQLite has no pool, PostgreSQL has one.
const RUN: [&str; 10] = [
    "--db",
    "sqlite,postgres",
    "--case",
    "schema_change",
    "--case",
    "long_duration",
    "--workers",
    "2",
    "--records-per-worker",
    "30000",
];

/// Whether a panel shows only metrics with this prefix.
pub(crate) fn shows_only(panel: &serde_json::Value, prefix: &str) -> bool {
    let targets = panel["targets"].as_array().filter(|targets| !targets.is_empty());
    let has_prefix = |target: &serde_json::Value| target["expr"].as_str().unwrap().contains(prefix);
    targets.is_some_and(|targets| targets.iter().all(has_prefix))
}

/// The panels that show only metrics that this run does not have: of a durable intake, or of the feeds of a stream.
fn other_panels(prefix: &str) -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let panels =
        panels.flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten()));
    let others: Vec<String> = panels
        .filter(|panel| shows_only(panel, prefix))
        .map(|panel| panel["title"].as_str().unwrap().to_owned())
        .collect();
    assert!(!others.is_empty());
    others
}

#[test]
fn every_panel_of_the_dashboard_has_data() {
    let begin = Instant::now();
    let postgres = Server::start(Kind::Postgres, &[]);
    let suite = Suite::new(&RUN).env("POSTGRES_DSN", postgres.dsn()).args(&["--buffer-size", "1000"]).start();
    let target = format!("target={}", suite.address());
    let prometheus = Server::start(Kind::Prometheus, &[&target, "interval=1s"]);
    let finished = suite.wait().expect_code(0);

    let window = Duration::from_secs(begin.elapsed().as_secs() + 10);
    let choice = Choice { window, rate_interval: Duration::from_secs(4), ..Choice::default() };
    let panels = panels(prometheus.dsn(), DASHBOARD, &choice, Duration::from_secs(20)).unwrap();
    println!("{panels}");
    // No missing data is excused: this run has a pool, tests, and an allocator that reports its sweeps.
    let of_alerts = "annotation Alerts";
    // The suite has no durable intake, whose figures are compared in the tests of batchsql-prometheus, and no stream, see `feeds`.
    let others = [other_panels("batchsql_durable_"), other_panels("batchsql_feed_")].concat();
    let is_expected = |place: &str| place != of_alerts && !others.iter().any(|panel| place == panel);
    let missing: Vec<_> =
        panels.answers.iter().filter(|answer| answer.series == 0 && is_expected(&answer.place)).collect();
    assert!(missing.is_empty(), "{missing:#?}\n{}", finished.stdout);
    // A panel that has only NaN is also empty.
    let empty: Vec<_> = panels.answers.iter().filter(|answer| answer.series > 0 && answer.with_numbers == 0).collect();
    assert!(empty.is_empty(), "{empty:#?}");
    // No alert fires in a healthy run.
    let alerts = panels.answers.iter().find(|answer| answer.place == of_alerts).unwrap();
    assert_eq!(alerts.series, 0, "{panels}");
}
