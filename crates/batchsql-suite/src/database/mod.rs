//! The databases under test: what a case needs of one, and one file for each of them.

mod interface;
mod mysql;
mod name;
mod open;
mod postgres;
mod redis;
mod sql;
mod sqlite;
mod table;

pub use interface::{Database, Visitor};
pub use mysql::MySql;
pub use name::{DatabaseChoice, DatabaseName};
pub use open::open;
pub use postgres::Postgres;
pub use redis::Redis;
pub use sqlite::Sqlite;
pub use table::TableSpec;
