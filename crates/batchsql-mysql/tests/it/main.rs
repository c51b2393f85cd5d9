//! The sink on real servers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod abandoned;
mod catalog;
mod conflicts;
mod connect;
mod equal_keys;
mod errors;
mod find_written;
mod guilt;
mod link;
mod lost_transactions;
mod moments;
mod pools;
mod positions;
mod read_schema;
mod rules;
mod statements;
mod support;
mod trips;
mod types;
mod updates;
