//! Servers for tests and measurements: found, started, and nothing of them left afterwards.

mod account;
mod certificates;
mod find;
mod keeper;
mod kind;
mod mysql;
mod pgbouncer;
mod port;
mod postgres;
mod process;
mod random;
mod redis;
mod server;
mod source;

pub(crate) use kind::Kind;
pub(crate) use server::{Purpose, Server};
pub(crate) use source::start;
