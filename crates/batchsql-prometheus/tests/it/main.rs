//! Owns the checks of the exporter from outside: over HTTP, as Prometheus sees it.
//! Must not know the exporter's internals.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod access;
mod answers;
mod crowd;
mod durable;
mod endpoint;
mod http;
mod linger;
mod mistakes;
mod mounted;
mod prometheus;
mod saturated;
mod scrape;
mod tls;
mod warning;
