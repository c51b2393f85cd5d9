//! The databases under test: their interface, and one file for each of them.

mod interface;
mod mysql;
mod open;
mod postgres;
mod redis;
mod sql;
mod sqlite;

pub use crate::database_name::{DatabaseChoice, DatabaseName};
pub use crate::table_spec::TableSpec;
pub use interface::{Database, Visitor};
pub use mysql::MySql;
pub use open::open;
pub use postgres::Postgres;
pub use redis::Redis;
pub use sqlite::Sqlite;
