//! The sink on real servers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod catalog;
mod conflicts;
mod errors;
mod support;
mod types;
