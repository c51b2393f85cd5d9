//! Feeds with a source and a sink that the tests control.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod changed_table;
mod consumers;
mod endings;
mod exactly;
mod file;
#[cfg(unix)]
mod file_kill;
mod file_observers;
mod file_positions;
mod file_replaced;
mod file_support;
mod holes;
mod misfits;
mod moments;
mod source;
mod waits;
