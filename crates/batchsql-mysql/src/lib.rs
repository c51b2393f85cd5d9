//! The MySQL and MariaDB sink of BatchSQL.
mod bind;
mod catalog;
mod classify;
mod keys;
mod options;
mod plan;
mod sink;
mod types;
mod write;
mod write_ignore;

/// The client of this sink, for [`MySqlSink::mysql_pool`].
pub use sqlx;

pub use options::{IgnoreWith, MySqlOptions, OpenError, ReplaceWith};
pub use plan::MySqlPlan;
pub use sink::{MySqlConn, MySqlSink};
