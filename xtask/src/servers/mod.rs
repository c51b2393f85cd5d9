//! Servers for tests and measurements: found, started, and removed without residue.
//!
//! [`Sources`] decides where a server comes from; there is a file for each kind of server, and one for Docker. Each
//! server has a folder with a keeper process, which outlives this program until it has cleaned up.

mod account;
mod certificates;
pub(crate) mod docker;
mod find;
pub(crate) mod grafana;
mod keeper;
mod kind;
mod mysql;
mod nats;
mod packages;
mod pgbouncer;
pub(crate) mod port;
mod postgres;
mod process;
pub(crate) mod prometheus;
mod random;
mod redis;
mod server;
mod source;
mod wheels;

pub(crate) use account::{Account, is_root};
pub(crate) use find::program;
pub(crate) use keeper::Keeper;
pub(crate) use kind::Kind;
pub(crate) use packages::{Refusal, is_ci};
pub(crate) use process::Process;
pub(crate) use server::{Purpose, Server};
pub(crate) use source::{Provided, Sources};
