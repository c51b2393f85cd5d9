//! The program itself, started as a process, with real databases.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod back_pressure;
mod bad_input;
mod check;
mod client;
#[cfg(feature = "nats")]
mod cluster;
mod databases;
mod described;
mod fair_clients;
mod guides;
mod http_durable;
mod http_limits;
mod http_rows;
mod left_out;
mod load;
mod load_arguments;
#[cfg(feature = "arrow")]
mod load_batches;
#[cfg(feature = "arrow")]
mod load_batches_sql;
mod output;
mod program;
mod sources;
#[cfg(feature = "nats")]
mod stream_json;
#[cfg(feature = "nats")]
mod stream_logins;
#[cfg(feature = "nats")]
mod stream_mistakes;
#[cfg(feature = "nats")]
mod stream_signals;
#[cfg(feature = "nats")]
mod streams;
mod systemd;
mod tools;
