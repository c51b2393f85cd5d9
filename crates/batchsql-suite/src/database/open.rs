//! Owns opening a database from the options.
//! Must not know how it is used.

use anyhow::Result;

use super::interface::Database;
use crate::cli::Options;
use crate::database_name::DatabaseName;

/// Opens a database with the options.
///
/// # Errors
/// It cannot be opened; the message shows no password.
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "redis")),
    allow(unreachable_code, unused_variables, reason = "there is no database to open")
)]
pub async fn open(name: DatabaseName, options: &Options) -> Result<Box<dyn Database>> {
    Ok(match name {
        #[cfg(feature = "sqlite")]
        DatabaseName::Sqlite => Box::new(super::Sqlite::open(options.sqlite_dsn.as_deref())?),
        #[cfg(feature = "postgres")]
        DatabaseName::Postgres => Box::new(super::Postgres::open(name.needed(&options.postgres_dsn)?).await?),
        #[cfg(feature = "mysql")]
        DatabaseName::Mysql => Box::new(super::MySql::open(name.needed(&options.mysql_dsn)?).await?),
        #[cfg(feature = "redis")]
        DatabaseName::Redis => Box::new(super::Redis::open(name.needed(&options.redis_dsn)?).await?),
        #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "redis")))]
        name => anyhow::bail!("{}", without(name)),
    })
}

/// What to do about a database that this program was built without.
#[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "redis")))]
fn without(name: DatabaseName) -> String {
    let name = name.name();
    format!(
        "this program was built without {name}; run cargo xtask integration-test --db {name}, or build batchsql-suite \
         with --features {name}"
    )
}
