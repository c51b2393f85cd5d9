//! The durable intake with the scripted sink, with SQLite, and with processes that are killed.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod behaviour;
mod chaos;
mod disk;
mod exactly;
mod gaps;
mod kept;
#[cfg(unix)]
mod kill;
mod monitor;
#[cfg(target_os = "linux")]
mod outage;
#[cfg(unix)]
mod parked;
mod positions;
#[cfg(unix)]
mod requests;
#[cfg(unix)]
mod sqlite;
mod support;
mod together;
mod tool;
