//! The PostgreSQL sink of BatchSQL.

mod catalog;
mod classify;
mod conn;
mod encode;
mod options;
mod params;
mod plan;
mod settings;
mod sink;
mod statements;
mod told;
mod types;
mod write;
mod write_copy;
mod write_insert;

/// The PostgreSQL client of this sink, for [`PostgresSink::new`] and [`PostgresSink::pg_pool`].
pub use sqlx;

pub use conn::PostgresConn;
pub use options::{OpenError, PostgresOptions};
pub use plan::PostgresPlan;
pub use settings::{Settings, Strategy};
pub use sink::PostgresSink;
