//! The administrators: what creates and reads the tables of a run, and causes the faults inside of a database, with plain
//! clients and a direct connection.
//!
//! [`interface`] says what they do, [`tables`] has the SQL that they share, [`link`] the connections to servers with
//! SQL; each database has a file.

mod interface;
mod link;
#[cfg(test)]
mod lock_tests;
mod mysql;
mod postgres;
mod redis;
mod sqlite;
mod tables;

pub(super) use interface::{Admin, Held, NotLocked, Scene};
pub(super) use mysql::MySql;
pub(super) use postgres::Postgres;
pub(super) use redis::Redis;
pub(super) use sqlite::Sqlite;
