//! Owns statements on the database of a test, beside the pipeline that is tested.
//! Must not know what is written.

use std::path::PathBuf;

use batchsql::sqlite::rusqlite::Connection;
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres};
use batchsql_suite::database::{MySql, Postgres as PostgresDatabase};

use super::servers::{Own, on};

/// Runs statements on the database of a test.
pub(crate) enum Setup {
    Postgres(PostgresDatabase),
    MySql(MySql),
    Sqlite(PathBuf),
}

impl Setup {
    async fn new(name: DatabaseName, url: &str, file: PathBuf) -> Self {
        match name {
            Postgres => Self::Postgres(PostgresDatabase::open(url).await.unwrap()),
            Mysql => Self::MySql(MySql::open(url).await.unwrap()),
            _ => Self::Sqlite(file),
        }
    }

    pub(crate) async fn execute(&self, sql: &str, table: &str) {
        let sql = sql.replace("{t}", table);
        match self {
            Self::Postgres(database) => database.execute(&sql).await.unwrap(),
            Self::MySql(database) => database.execute(&sql).await.unwrap(),
            Self::Sqlite(file) => Connection::open(file).unwrap().execute_batch(&sql).unwrap(),
        }
    }
}

pub(crate) async fn with_setup(name: DatabaseName, test: impl AsyncFnOnce(&str, &Setup)) {
    on(name, async |own: &Own| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.db");
        let url = own.dsn.clone().unwrap_or_else(|| format!("sqlite://{}", file.display()));
        test(&url, &Setup::new(name, &url, file).await).await;
    })
    .await;
}
