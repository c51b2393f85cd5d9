//! Checks of the files that BatchSQL ships for Prometheus and Grafana: every query in `monitoring/` and `docs/` against
//! the metric catalogue, and every panel of the dashboard against a running Prometheus.
//!
//! - [`lint`] reads files: names, labels and functions of every query, the structure of dashboards, the completeness
//!   of rules with their tests and runbooks.
//! - [`panels`] sends every query of a dashboard to a running Prometheus, as Grafana does.

mod client;
mod dashboard;
mod dashboard_lint;
mod documents;
mod finding;
mod functions;
mod lint;
mod names;
mod panels;
mod query;
mod rules;
mod rules_lint;
mod variables;

pub use client::PrometheusError;
pub use finding::Finding;
pub use lint::{Report, lint};
pub use panels::{Answer, Choice, Panels, panels};
