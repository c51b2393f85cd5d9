//! Owns the administrator of MySQL and MariaDB.
//! Must not know when a fault is caused.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};
use sqlx::{Executor, Row};
use url::Url;

use super::interface::LOCK;
use super::link::{self, Link, called, change, run};
use super::tables::{self, Words};
use super::{Admin, Held, Scene};
use crate::chaos::check::Found;
use crate::chaos::fault::Fault;

const WORDS: Words = Words { number: "number BIGINT PRIMARY KEY AUTO_INCREMENT", tail: " ENGINE=InnoDB" };
/// The user of the writer.
const WRITER: &str = "chaos_writer";
const PASSWORD: &str = "chaos";

/// The administrator of one server.
#[derive(Debug)]
pub(in crate::chaos) struct MySql {
    dsn: Url,
}

impl MySql {
    pub(in crate::chaos) fn new(dsn: &str) -> Result<Self> {
        Ok(Self { dsn: Url::parse(dsn).context("the DSN of the server")? })
    }

    async fn connect(&self) -> Result<MySqlConnection> {
        let mut link: MySqlConnection = link::connect(&self.dsn).await?;
        let seconds = LOCK.as_secs();
        let limits = format!("SET SESSION lock_wait_timeout = {seconds}, innodb_lock_wait_timeout = {seconds}");
        called(Link::execute(&mut link, &limits)).await?;
        Ok(link)
    }

    async fn run(&self, statements: &[String]) -> Result<()> {
        run(&mut self.connect().await?, statements).await
    }

    /// The statements that create the tables, with triggers for each version.
    fn create_tables(scene: &Scene) -> Vec<String> {
        let (keyed, history) = (&scene.names.keyed, &scene.names.history);
        let mut statements = tables::create(scene, &WORDS);
        for event in ["INSERT", "UPDATE"] {
            statements.push(format!(
                "CREATE TRIGGER {history}_{event}_{} AFTER {event} ON {keyed} FOR EACH ROW INSERT INTO {history} (id, producer, \
                 seq) VALUES (NEW.id, NEW.producer, NEW.seq)",
                scene.gone
            ));
        }
        statements
    }
}

async fn end_sessions(link: &mut MySqlConnection) -> Result<()> {
    let query = format!("SELECT id FROM information_schema.processlist WHERE user = '{WRITER}'");
    let rows = called(sqlx::query(&query).fetch_all(&mut *link)).await?;
    for row in rows {
        // Signed in MariaDB, unsigned in MySQL.
        let id = row.try_get::<i64, _>(0).or_else(|_| row.try_get::<u64, _>(0).map(|id| id as i64))?;
        // The session may have ended.
        let _ = called(Link::execute(link, &format!("KILL {id}"))).await;
    }
    Ok(())
}

#[async_trait]
impl Link for MySqlConnection {
    async fn execute(&mut self, statement: &str) -> sqlx::Result<()> {
        Executor::execute(self, sqlx::raw_sql(statement)).await.map(drop)
    }

    fn is_lock_timeout(error: &sqlx::Error) -> bool {
        let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
        error.is_some_and(|error| error.number() == 1205)
    }

    async fn rows(&mut self, query: &str) -> sqlx::Result<Vec<(i64, i64, i64)>> {
        sqlx::query_as(query).fetch_all(self).await
    }
}

#[async_trait]
impl Admin for MySql {
    fn server(&self) -> Option<String> {
        link::server(&self.dsn)
    }

    fn writer_dsn(&self, address: Option<SocketAddr>) -> Result<String> {
        let address = address.context("the writer needs the address of the server")?;
        Ok(format!("mysql://{WRITER}:{PASSWORD}@{address}{}?ssl-mode=DISABLED", self.dsn.path()))
    }

    async fn create(&self, scene: &Scene) -> Result<()> {
        let mut statements = vec![
            format!("CREATE USER IF NOT EXISTS '{WRITER}'@'%' IDENTIFIED BY '{PASSWORD}'"),
            // For the table of positions.
            format!("GRANT CREATE, SELECT, INSERT, UPDATE ON batchsql_positions TO '{WRITER}'@'%'"),
            tables::create_history(scene, &WORDS),
        ];
        statements.extend(Self::create_tables(scene));
        // Rights of tables: a session learns of them with its next statement, and of those of databases later.
        statements.extend(tables::each(scene, |table| {
            format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO '{WRITER}'@'%'")
        }));
        self.run(&statements).await
    }

    async fn begin(&self, fault: Fault, scene: &mut Scene) -> Result<Held> {
        let keyed = &scene.names.keyed;
        let mut link = self.connect().await?;
        let mut ends_sessions = false;
        let statements = match fault {
            Fault::SessionsTerminated => {
                ends_sessions = true;
                vec![]
            }
            Fault::PoolExhausted => {
                ends_sessions = true;
                // 0 would mean no limit.
                vec![format!("ALTER USER '{WRITER}'@'%' WITH MAX_USER_CONNECTIONS 1")]
            }
            Fault::PasswordWrong => {
                ends_sessions = true;
                vec![format!("ALTER USER '{WRITER}'@'%' IDENTIFIED BY 'another'")]
            }
            Fault::ReadOnly => vec!["SET GLOBAL read_only = 1".to_owned()],
            Fault::RightRevoked => tables::each(scene, |table| format!("REVOKE INSERT ON {table} FROM '{WRITER}'@'%'")),
            Fault::ColumnAdded => tables::each(scene, |table| format!("ALTER TABLE {table} ADD COLUMN extra TEXT")),
            Fault::TableRecreated => tables::take_away(scene),
            Fault::RowLocked => {
                let lock = format!("SELECT id FROM {keyed} ORDER BY id DESC LIMIT 1 FOR UPDATE");
                run(&mut link, &["START TRANSACTION".to_owned(), lock]).await?;
                return Ok(Some(Box::new(link)));
            }
            Fault::TableLocked => {
                run(&mut link, &[format!("LOCK TABLES {keyed} WRITE")]).await?;
                return Ok(Some(Box::new(link)));
            }
            other => bail!("{} is not a fault inside of MySQL", other.name()),
        };
        change(&mut link, &statements, scene).await?;
        scene.gone += u32::from(fault == Fault::TableRecreated);
        if ends_sessions {
            end_sessions(&mut link).await?;
        }
        Ok(None)
    }

    async fn end(&self, fault: Fault, scene: &mut Scene, held: Held) -> Result<()> {
        // The end of the connection releases its locks.
        drop(held);
        let statements = match fault {
            Fault::SessionsTerminated => return end_sessions(&mut self.connect().await?).await,
            Fault::PoolExhausted => vec![format!("ALTER USER '{WRITER}'@'%' WITH MAX_USER_CONNECTIONS 0")],
            Fault::PasswordWrong => vec![format!("ALTER USER '{WRITER}'@'%' IDENTIFIED BY '{PASSWORD}'")],
            Fault::ReadOnly => vec!["SET GLOBAL read_only = 0".to_owned()],
            Fault::RightRevoked => tables::each(scene, |table| format!("GRANT INSERT ON {table} TO '{WRITER}'@'%'")),
            Fault::ColumnAdded => tables::each(scene, |table| format!("ALTER TABLE {table} DROP COLUMN extra")),
            Fault::TableRecreated => Self::create_tables(scene),
            _ => return Ok(()),
        };
        change(&mut self.connect().await?, &statements, scene).await
    }

    async fn read(&self, scene: &Scene) -> Result<Found> {
        link::read(&mut self.connect().await?, scene).await
    }

    fn refuses_bad_rows(&self) -> bool {
        true
    }
}
