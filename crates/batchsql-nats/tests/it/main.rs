//! Publishers and workers with a real server, in this process and as processes that are killed.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod database;
mod formats;
mod frozen;
mod kill;
mod misfits;
mod moved;
mod outages;
mod publisher;
mod redelivered;
mod support;
mod trouble;
mod visible;
mod worker;
