//! The sections of a configuration as they are written, with their defaults.
//!
//! `config` is the whole, and has the short sections; `http`, `durable`, `table` and `source` have one subject each.

mod config;
mod durable;
mod http;
mod source;
mod table;

pub(crate) use config::{Config, Database, Log, LogFormat};
pub(crate) use durable::{Durable, Sync};
pub(crate) use http::{Http, Idempotency, Limits, Metrics, Tls};
pub(crate) use source::{Format, Source};
pub(crate) use table::{Missing, RedisCommand, Rule, SetTo, Table, Unknown};
