//! The sink on real servers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod abandoned;
mod arrays;
mod changes;
mod composites;
mod conflicts;
mod connect;
mod copy;
mod errors;
mod extensions;
mod find_written;
mod guilt;
mod inheritance;
mod left_out;
mod link;
mod lists;
mod lossy;
mod lost_transactions;
mod moments;
mod partial;
mod pgbouncer;
mod pooler;
mod positions;
mod positions_table;
mod proxy;
mod read_schema;
mod rules;
mod servers;
mod sources;
mod support;
mod tables;
mod trips;
mod types;
mod vectors;
