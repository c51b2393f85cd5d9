//! Owns the choice of a driver by the scheme of a DSN.
//! Must not know what comes after the scheme.

use batchsql_core::{DynSink, OpenError};

type Opened = Result<DynSink, OpenError>;

/// A driver: its schemes, the feature that brings it, and an example of its DSNs.
struct Driver {
    schemes: &'static [&'static str],
    feature: &'static str,
    example: &'static str,
}

const DRIVERS: [Driver; 4] = [
    Driver {
        schemes: &["postgres", "postgresql"],
        feature: "postgres",
        example: "postgres://user:password@host/database",
    },
    Driver { schemes: &["mysql", "mariadb"], feature: "mysql", example: "mysql://user:password@host/database" },
    Driver { schemes: &["sqlite"], feature: "sqlite", example: "sqlite:file.db" },
    Driver {
        schemes: &["redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix", "redis+unix"],
        feature: "redis",
        example: "redis://host:6379",
    },
];

/// Opens the database of a DSN with the driver of its scheme, so that the database can be chosen at run time.
///
/// | scheme | driver | feature |
/// |---|---|---|
/// | `postgres://`, `postgresql://` | PostgreSQL | `postgres` |
/// | `mysql://`, `mariadb://` | MySQL and MariaDB | `mysql` |
/// | `sqlite:` | SQLite | `sqlite` |
/// | `redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `rediss+sentinel://` | Redis: one server, sentinels or a cluster | `redis` |
///
/// The options of each driver document what may follow the scheme, for example `postgres::PostgresOptions`. A server is
/// contacted at once, so that mistakes are seen before the first row. The [`DynSink`] costs one box per batch; to
/// configure a driver in code, open its sink and wrap it with [`DynSink::new`].
///
/// ```
/// # #[cfg(feature = "sqlite-system")]
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let dsn = "sqlite::memory:"; // from the configuration
/// let db = batchsql::BatchSql::builder(batchsql::connect(dsn).await?).start()?;
/// # let _ = db;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A scheme without a driver in this build, a DSN that the driver does not understand, or a database that
/// cannot be opened within the driver's connect timeout (5 s unless the DSN says otherwise). For the first two,
/// [`OpenError::is_invalid_options`] is true. The message never shows a password.
///
/// # Cancel safety
/// When it is cancelled, connections that were opened are closed.
pub async fn connect(dsn: &str) -> Result<DynSink, OpenError> {
    match driver_of(dsn)?.feature {
        "postgres" => postgres::connect(dsn).await,
        "mysql" => mysql::connect(dsn).await,
        "sqlite" => sqlite::connect(dsn).await,
        "redis" => redis::connect(dsn).await,
        other => unreachable!("no code opens the driver {other}"),
    }
}

/// As [`connect`], but contacts no server, so that a program can start while its database is down. Connections are opened
/// when rows are written. While the server cannot be reached, rows wait for `retry_for` and then expire; if it rejects
/// the login or has no such database, they wait for `park_for` and are then rejected.
/// [`BatchSql::check_connection`](batchsql_core::BatchSql::check_connection) tries to connect, and
/// [`BatchSql::health`](batchsql_core::BatchSql::health) shows the result.
///
/// SQLite has no server to wait for: its file is opened at once, as by [`connect`].
///
/// ```
/// # #[cfg(feature = "postgres")]
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// // The server may start later than this program.
/// let sink = batchsql::connect_lazy("postgres://app@db.internal/shop")?;
/// let db = batchsql::BatchSql::builder(sink).start()?;
/// # let _ = db;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A scheme without a driver in this build, a DSN that the driver does not understand, or a SQLite file that cannot be
/// opened. The message never shows a password.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn connect_lazy(dsn: &str) -> Result<DynSink, OpenError> {
    match driver_of(dsn)?.feature {
        "postgres" => postgres::connect_lazy(dsn),
        "mysql" => mysql::connect_lazy(dsn),
        "sqlite" => sqlite::connect_lazy(dsn),
        "redis" => redis::connect_lazy(dsn),
        other => unreachable!("no code opens the driver {other}"),
    }
}

/// Checks a DSN as [`connect`] does, and contacts and opens nothing.
///
/// ```
/// let error = batchsql::check_dsn("postgrse://app@db.internal/shop").unwrap_err();
/// assert!(error.is_invalid_options());
/// ```
///
/// # Errors
/// A scheme without a driver in this build, or a DSN that the driver does not understand. The message never shows a password.
pub fn check_dsn(dsn: &str) -> Result<(), OpenError> {
    match driver_of(dsn)?.feature {
        "postgres" => postgres::check(dsn),
        "mysql" => mysql::check(dsn),
        "sqlite" => sqlite::check(dsn),
        "redis" => redis::check(dsn),
        other => unreachable!("no code knows the driver {other}"),
    }
}

fn driver_of(dsn: &str) -> Result<&'static Driver, OpenError> {
    let scheme = dsn.split_once(':').map(|(scheme, _)| scheme);
    let driver = scheme.and_then(|scheme| DRIVERS.iter().find(|driver| driver.schemes.contains(&scheme)));
    driver.ok_or_else(|| unknown(dsn))
}

/// The functions of a driver; without the feature they return an error.
macro_rules! way {
    ($name:ident, $feature:literal in $cfg:literal, $options:ty, $dsn:ident => $open:expr, $open_lazy:expr) => {
        mod $name {
            use super::*;

            #[cfg(feature = $cfg)]
            pub(super) async fn connect($dsn: &str) -> Opened {
                $open.map(DynSink::new)
            }

            #[cfg(feature = $cfg)]
            pub(super) fn connect_lazy($dsn: &str) -> Opened {
                $open_lazy.map(DynSink::new)
            }

            #[cfg(feature = $cfg)]
            pub(super) fn check(dsn: &str) -> Result<(), OpenError> {
                dsn.parse::<$options>().map(drop)
            }

            #[cfg(not(feature = $cfg))]
            pub(super) fn check(_: &str) -> Result<(), OpenError> {
                Err(missing($feature))
            }

            #[cfg(not(feature = $cfg))]
            pub(super) async fn connect(_: &str) -> Opened {
                Err(missing($feature))
            }

            #[cfg(not(feature = $cfg))]
            pub(super) fn connect_lazy(_: &str) -> Opened {
                Err(missing($feature))
            }
        }
    };
}

way!(postgres, "postgres" in "postgres", batchsql_postgres::PostgresOptions, dsn => batchsql_postgres::PostgresSink::connect(dsn).await,
    batchsql_postgres::PostgresSink::connect_lazy(dsn));
way!(mysql, "mysql" in "mysql", batchsql_mysql::MySqlOptions, dsn => batchsql_mysql::MySqlSink::connect(dsn).await,
    batchsql_mysql::MySqlSink::connect_lazy(dsn));
way!(sqlite, "sqlite" in "sqlite-system", batchsql_sqlite::SqliteOptions, dsn => batchsql_sqlite::SqliteSink::open(dsn),
    batchsql_sqlite::SqliteSink::open(dsn));
way!(redis, "redis" in "redis", batchsql_redis::RedisOptions, dsn => batchsql_redis::RedisSink::connect(dsn).await,
    batchsql_redis::RedisSink::connect_lazy(dsn));

#[cfg_attr(
    all(feature = "postgres", feature = "mysql", feature = "sqlite-system", feature = "redis"),
    allow(dead_code, reason = "no driver is missing")
)]
fn missing(feature: &str) -> OpenError {
    OpenError::invalid_options(format!(
        "this program was built without the {feature} driver; enable the feature {feature:?} of batchsql"
    ))
}

fn unknown(dsn: &str) -> OpenError {
    let examples: Vec<&str> = DRIVERS.iter().map(|driver| driver.example).collect();
    // Without a `://` the text before the colon may be anything, also a password.
    let shown = dsn.split_once("://").map(|(scheme, _)| scheme);
    let shown =
        shown.filter(|scheme| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)));
    let what = match shown {
        Some(scheme) => format!("there is no driver for the scheme {scheme:?}"),
        None => "the database DSN has no scheme".to_owned(),
    };
    OpenError::invalid_options(format!("{what}; write it like {}", examples.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_dsn_is_checked_without_a_connection() {
        let check = |dsn: &str, is_compiled: bool, part: &str| {
            let error = check_dsn(dsn).expect_err(dsn);
            assert!(error.is_invalid_options(), "{dsn}: {error}");
            assert!(
                error.to_string().contains(if is_compiled { part } else { "enable the feature" }),
                "{dsn}: {error}"
            );
        };
        check("postgrse://app@db/shop", true, "no driver for the scheme");
        check("postgres://app@db:99999/shop", cfg!(feature = "postgres"), "port");
        check("postgres://app@db/shop?sslmod=require", cfg!(feature = "postgres"), "sslmod");
        check("mysql://app@db:99999/shop", cfg!(feature = "mysql"), "not a URL");
        check("mysql://app@db/shop?sslmod=required", cfg!(feature = "mysql"), "sslmod");
        check("sqlite:a.db?mod=rw", cfg!(feature = "sqlite-system"), "mod");
        check("redis://h:99999/0", cfg!(feature = "redis"), "port");
        #[cfg(feature = "postgres")]
        check_dsn("postgres://app@no.such.host.invalid/shop").unwrap();
        #[cfg(feature = "sqlite-system")]
        check_dsn("sqlite:/no/such/folder/a.db").unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_opened_says_why_and_shows_no_password() {
        let check = async |dsn: &str, part: &str| {
            let error = connect(dsn).await.unwrap_err();
            let all = format!("{error} {error:?} {:?}", error.source());
            assert!(error.to_string().contains(part), "{dsn}: {error}");
            assert!(!all.contains("hunter2"), "{all}");
            // A `main` that returns the error prints this.
            assert!(format!("{error:?}").starts_with(&error.to_string()), "{error:?}");
            assert_eq!(format!("{error:?}").matches(&error.to_string()).count(), 1, "{error:?}");
        };
        check("oracle://u:hunter2@h/db", "no driver for the scheme \"oracle\"").await;
        check("hunter2", "has no scheme").await;
        check("u:hunter2@h", "has no scheme").await;
        check("u:hunter2@h://x", "has no scheme").await;
        check("", "postgres://user:password@host/database").await;
        #[cfg(feature = "sqlite-system")]
        check("sqlite:/no/such/folder/a.db", "its folder does not exist").await;
        #[cfg(not(feature = "sqlite-system"))]
        check("sqlite::memory:", "enable the feature \"sqlite\"").await;
        // No server listens on port 1. Each scheme is understood by the driver that it belongs to.
        for driver in &DRIVERS {
            for scheme in driver.schemes.iter().filter(|scheme| !["sqlite", "unix", "redis+unix"].contains(scheme)) {
                let is_missing = match driver.feature {
                    "postgres" => cfg!(not(feature = "postgres")),
                    "mysql" => cfg!(not(feature = "mysql")),
                    _ => cfg!(not(feature = "redis")),
                };
                let part = if is_missing { "enable the feature" } else { "127.0.0.1" };
                check(&format!("{scheme}://u:hunter2@127.0.0.1:1/0"), part).await;
            }
        }
        let part = if cfg!(feature = "redis") { "/no/such/socket" } else { "enable the feature" };
        check("unix:///no/such/socket?pass=hunter2", part).await;
    }

    /// Without the driver the DSN is invalid, too.
    #[tokio::test]
    async fn invalid_options_are_told_from_a_server_that_cannot_be_reached() {
        for dsn in [
            "oracle://h/db",
            "postgres://h/db?max_connections=0",
            "mysql://h/db?max_connections=0",
            "redis://h?max_connections=0",
            "sqlite:a.db?mode=nope",
        ] {
            let error = connect(dsn).await.unwrap_err();
            assert!(error.is_invalid_options(), "{dsn}: {error}");
            assert_eq!(connect_lazy(dsn).unwrap_err().to_string(), error.to_string());
        }
        for driver in DRIVERS.iter().filter(|driver| driver.feature != "sqlite") {
            let error = connect(&format!("{}://u@127.0.0.1:1/0", driver.schemes[0])).await.unwrap_err();
            let is_missing = error.to_string().contains("enable the feature");
            assert_eq!(error.is_invalid_options(), is_missing, "{}: {error}", driver.feature);
        }
    }

    /// No server listens on port 1, and none is contacted.
    #[tokio::test]
    async fn a_program_starts_before_its_server() {
        use batchsql_core::{BatchSql, DatabaseState, Sink};
        for driver in DRIVERS.iter().filter(|driver| driver.feature != "sqlite") {
            let dsn = format!("{}://u:hunter2@127.0.0.1:1/0?connect_timeout=1", driver.schemes[0]);
            match connect_lazy(&dsn) {
                Ok(sink) => {
                    assert_eq!(sink.name(), driver.feature);
                    let db = BatchSql::builder(sink).start().unwrap();
                    assert!(matches!(db.health().database, DatabaseState::NotTried), "{}", driver.feature);
                    let error = db.check_connection().await.unwrap_err().to_string();
                    assert!(!error.contains("hunter2"), "{error}");
                    db.close(std::time::Duration::from_secs(60)).await;
                }
                Err(error) => assert!(error.to_string().contains("enable the feature"), "{error}"),
            }
        }
    }

    #[cfg(feature = "sqlite-system")]
    #[tokio::test]
    async fn a_url_opens_its_driver() {
        use batchsql_core::Sink;
        assert_eq!(connect("sqlite::memory:").await.unwrap().name(), "sqlite");
        assert_eq!(connect_lazy("sqlite::memory:").unwrap().name(), "sqlite");
        // There is no server that could come later.
        assert!(connect_lazy("sqlite:/no/such/folder/a.db").is_err());
    }
}
