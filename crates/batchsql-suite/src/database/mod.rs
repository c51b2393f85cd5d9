//! The databases under test: their interface, and one file for each of them.

mod interface;
#[cfg(feature = "mysql")]
mod mysql;
mod open;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod sql;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod sql_database;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use crate::database_name::{DatabaseChoice, DatabaseName};
pub use crate::table_spec::TableSpec;
pub use interface::{Database, Visitor};
#[cfg(feature = "mysql")]
pub use mysql::MySql;
pub use open::open;
#[cfg(feature = "postgres")]
pub use postgres::Postgres;
#[cfg(feature = "redis")]
pub use redis::Redis;
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
