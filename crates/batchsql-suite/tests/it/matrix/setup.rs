//! Owns statements on the database of a test, beside the pipeline that is tested.
//! Must not know what is written.

use std::path::PathBuf;

use batchsql::sqlite::rusqlite::Connection;
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres};
use batchsql_suite::database::{Database, MySql, Postgres as PostgresDatabase, Sqlite};

use super::servers::{Own, on, with_parameters};

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

/// Statements that make triggers that change nothing; `{t}` is the table.
pub(crate) fn triggers(name: DatabaseName) -> Vec<String> {
    match name {
        Postgres => {
            let mut sql = vec![
                "CREATE FUNCTION {t}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $$"
                    .to_owned(),
            ];
            let trigger = "CREATE TRIGGER {t}_g BEFORE INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW";
            sql.push(format!("{trigger} EXECUTE FUNCTION {{t}}_f()"));
            sql
        }
        Mysql => ["INSERT", "UPDATE", "DELETE"]
            .map(|event| format!("CREATE TRIGGER {{t}}_{event} BEFORE {event} ON {{t}} FOR EACH ROW SET @batchsql = 1"))
            .to_vec(),
        _ => ["INSERT", "UPDATE", "DELETE"]
            .map(|event| format!("CREATE TRIGGER {{t}}_{event} BEFORE {event} ON {{t}} BEGIN SELECT 1; END"))
            .to_vec(),
    }
}

/// Opens the database of a test, with parameters of the DSN.
pub(crate) async fn open(name: DatabaseName, url: &str, parameters: &str) -> Box<dyn Database> {
    let url = &with_parameters(url.to_owned(), parameters);
    match name {
        Postgres => Box::new(PostgresDatabase::open(url).await.unwrap()),
        Mysql => Box::new(MySql::open(url).await.unwrap()),
        _ => Box::new(Sqlite::open(Some(url)).unwrap()),
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
