//! The pipeline against scripted sinks, in paused time.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod admission;
mod coalesce;
mod connections;
mod dead_letters;
mod doubt;
mod expiry;
mod failure;
mod fairness;
mod features;
mod flush;
mod foreign;
mod growth;
mod health;
mod keys;
mod late_writes;
mod max_age;
mod model;
mod order;
mod parking;
mod readiness;
mod receipts;
mod repeated;
mod replay;
mod reporters;
mod rounds;
mod row_sink;
mod rules;
mod send;
mod serde_rows;
mod shutdown;
mod spans;
mod support;
mod table_settings;
mod timeliness;
mod together;
