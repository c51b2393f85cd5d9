//! The sink on real databases, in memory and in files.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod conflicts;
mod errors;
mod files;
mod support;
mod types;
