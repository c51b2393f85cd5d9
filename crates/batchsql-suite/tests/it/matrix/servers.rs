//! Owns the databases that tests write to: a file, or a separate database on the shared servers.
//! Must not know what is written.

use std::panic::{AssertUnwindSafe, resume_unwind};

use batchsql_suite::database::DatabaseName;
use batchsql_suite::database::{Database, MySql, Postgres, Redis, Sqlite};
use batchsql_testserver::{Kind, dsn, unique};
use futures_util::FutureExt;

/// The DSN of another database on the same server.
fn with_database(dsn: &str, name: &str) -> String {
    let (address, query) = dsn.split_once('?').map_or((dsn, String::new()), |(a, query)| (a, format!("?{query}")));
    let (scheme, authority) = address.split_once("://").expect("a dsn has a scheme");
    let (authority, _) = authority.split_once('/').unwrap_or((authority, ""));
    format!("{scheme}://{authority}/{name}{query}")
}

/// A DSN with further parameters.
pub(crate) fn with_parameters(dsn: String, parameters: &str) -> String {
    match (parameters, dsn.contains('?')) {
        ("", _) => dsn,
        (_, true) => format!("{dsn}&{parameters}"),
        (_, false) => format!("{dsn}?{parameters}"),
    }
}

/// A database for one test; `drop` removes it.
pub(crate) struct Own {
    pub(crate) name: DatabaseName,
    pub(crate) database: Box<dyn Database>,
    /// Its DSN, for another program.
    pub(crate) dsn: Option<String>,
    made: Option<String>,
}

impl Own {
    /// `parameters` are added to the DSN of a server.
    pub(crate) async fn new(name: DatabaseName, parameters: &str) -> Self {
        let own = unique("suite");
        match name {
            DatabaseName::Sqlite => {
                Self { name, database: Box::new(Sqlite::open(None).unwrap()), dsn: None, made: None }
            }
            DatabaseName::Postgres => {
                let shared = Postgres::open(&dsn(Kind::Postgres)).await.unwrap();
                shared.execute(&format!("CREATE DATABASE {own}")).await.unwrap();
                let dsn = with_parameters(with_database(&dsn(Kind::Postgres), &own), parameters);
                let database = Box::new(Postgres::open(&dsn).await.unwrap());
                Self { name, database, dsn: Some(dsn), made: Some(own) }
            }
            DatabaseName::Mysql => {
                let shared = MySql::open(&dsn(Kind::MySql)).await.unwrap();
                shared.execute(&format!("CREATE DATABASE {own}")).await.unwrap();
                let dsn = with_parameters(with_database(&dsn(Kind::MySql), &own), parameters);
                let database = Box::new(MySql::open(&dsn).await.unwrap());
                Self { name, database, dsn: Some(dsn), made: Some(own) }
            }
            // Its tables have unique names instead.
            DatabaseName::Redis => {
                let dsn = dsn(Kind::Redis);
                Self { name, database: Box::new(Redis::open(&dsn).await.unwrap()), dsn: Some(dsn), made: None }
            }
        }
    }

    async fn remove(self) {
        let Self { name, database, made, .. } = self;
        drop(database);
        let Some(made) = made else { return };
        match name {
            DatabaseName::Postgres => {
                let shared = Postgres::open(&dsn(Kind::Postgres)).await.unwrap();
                shared.execute(&format!("DROP DATABASE {made} WITH (FORCE)")).await.unwrap();
            }
            DatabaseName::Mysql => {
                let shared = MySql::open(&dsn(Kind::MySql)).await.unwrap();
                shared.execute(&format!("DROP DATABASE {made}")).await.unwrap();
            }
            DatabaseName::Sqlite | DatabaseName::Redis => {}
        }
    }
}

/// Runs a test on a database of its own, which is removed however the test ends.
pub(crate) async fn on(name: DatabaseName, test: impl AsyncFnOnce(&Own)) {
    with(name, "", test).await;
}

/// The same, with parameters of the DSN.
pub(crate) async fn with(name: DatabaseName, parameters: &str, test: impl AsyncFnOnce(&Own)) {
    let own = Own::new(name, parameters).await;
    let result = AssertUnwindSafe(test(&own)).catch_unwind().await;
    own.remove().await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}
