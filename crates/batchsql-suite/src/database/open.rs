//! Owns opening a database from the options.
//! Must not know how it is used.

use anyhow::Result;

use super::interface::Database;
use super::{MySql, Postgres, Redis, Sqlite};
use crate::cli::Options;
use crate::database_name::DatabaseName;

/// Opens a database with the options.
///
/// # Errors
/// It cannot be opened; the message shows no password.
pub async fn open(name: DatabaseName, options: &Options) -> Result<Box<dyn Database>> {
    Ok(match name {
        DatabaseName::Sqlite => Box::new(Sqlite::open(options.sqlite_dsn.as_deref())?),
        DatabaseName::Postgres => Box::new(Postgres::open(name.needed(&options.postgres_dsn)?).await?),
        DatabaseName::Mysql => Box::new(MySql::open(name.needed(&options.mysql_dsn)?).await?),
        DatabaseName::Redis => Box::new(Redis::open(name.needed(&options.redis_dsn)?).await?),
    })
}
