//! The verbs that start servers, from outside. Needs the servers' programs, which `cargo xtask test` installs.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod docker;
mod exporter;
mod lint_monitoring;
mod monitor;
mod monitor_docker;
mod monitored;
mod place;
mod prometheus;
mod server;
mod verbs;
