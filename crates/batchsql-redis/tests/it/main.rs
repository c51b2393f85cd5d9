//! The sink on real servers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod abandoned;
mod canary;
mod cluster;
mod commands;
mod errors;
mod large;
mod links;
mod open;
mod outcomes;
mod passing;
mod password;
mod persistence;
mod scripted;
mod sentinel;
mod silence;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod types;
