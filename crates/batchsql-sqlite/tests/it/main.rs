//! The sink on real databases, in memory and in files.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod canary;
mod changes;
mod conflicts;
mod errors;
mod files;
#[cfg(unix)]
mod find_written;
mod full;
mod given_up;
#[cfg(unix)]
mod kill;
#[cfg(unix)]
mod locks;
mod moments;
mod names;
#[cfg(unix)]
mod numbered;
mod partial;
mod policies;
mod positions;
#[cfg(unix)]
mod read_schema;
#[cfg(unix)]
mod readonly;
mod rules;
mod support;
mod types;
