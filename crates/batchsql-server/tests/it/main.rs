//! The program itself, started as a process, with real databases.

#![allow(clippy::unwrap_used)]

mod check;
mod client;
mod http_limits;
mod http_rows;
mod program;
