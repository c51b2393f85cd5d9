//! The README, the examples, and the example service from outside. One program, because each would take long to link.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

#[cfg(all(unix, feature = "derive", feature = "sqlite", feature = "prometheus", feature = "tls"))]
mod examples;
#[cfg(all(unix, feature = "derive", feature = "sqlite", feature = "prometheus", feature = "tls"))]
mod ingest_service;
mod readme;
#[cfg(all(unix, feature = "derive", feature = "sqlite", feature = "prometheus", feature = "tls"))]
mod service;
