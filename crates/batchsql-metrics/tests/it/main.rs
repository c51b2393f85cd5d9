//! Owns the proof that real pipelines show the right numbers through an exporter that is not Prometheus.
//! Must not know how handles are registered.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod dogstatsd;
mod durable;
mod feeds;
mod pipeline;
mod snapshot;
mod tests_of_users;
