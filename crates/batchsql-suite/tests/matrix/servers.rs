//! Owns the databases that tests write to: a file, or a database of their own on the shared servers.
//! Must not know what is written.

use std::panic::{AssertUnwindSafe, resume_unwind};

use batchsql_suite::cli::DatabaseName;
use batchsql_suite::database::{Database, MySql, Postgres, Redis, Sqlite};
use batchsql_testserver::{Kind, dsn, unique};
use futures_util::FutureExt;

/// The DSN of another database on the same server.
fn with_database(dsn: &str, name: &str) -> String {
    let (server, query) = dsn.split_once('?').map_or((dsn, None), |(server, query)| (server, Some(query)));
    let (start, _) = server.rsplit_once('/').expect("a dsn of the test run names a database");
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{start}/{name}{query}")
}

/// A database that only one test uses; `drop` removes it again.
pub(crate) struct Own {
    pub(crate) name: DatabaseName,
    pub(crate) database: Box<dyn Database>,
    /// Where it is, for another program.
    pub(crate) dsn: Option<String>,
    made: Option<String>,
}

impl Own {
    pub(crate) async fn new(name: DatabaseName) -> Self {
        let own = unique("suite");
        match name {
            DatabaseName::Sqlite => {
                Self { name, database: Box::new(Sqlite::open(None).unwrap()), dsn: None, made: None }
            }
            DatabaseName::Postgres => {
                let shared = Postgres::open(&dsn(Kind::Postgres)).await.unwrap();
                shared.execute(&format!("CREATE DATABASE {own}")).await.unwrap();
                let dsn = with_database(&dsn(Kind::Postgres), &own);
                let database = Box::new(Postgres::open(&dsn).await.unwrap());
                Self { name, database, dsn: Some(dsn), made: Some(own) }
            }
            DatabaseName::Mysql => {
                let shared = MySql::open(&dsn(Kind::MySql)).await.unwrap();
                shared.execute(&format!("CREATE DATABASE {own}")).await.unwrap();
                let dsn = with_database(&dsn(Kind::MySql), &own);
                let database = Box::new(MySql::open(&dsn).await.unwrap());
                Self { name, database, dsn: Some(dsn), made: Some(own) }
            }
            // Its tables have names of their own instead.
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
    let own = Own::new(name).await;
    let result = AssertUnwindSafe(test(&own)).catch_unwind().await;
    own.remove().await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}
