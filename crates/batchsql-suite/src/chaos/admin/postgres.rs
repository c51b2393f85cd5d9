//! Owns the administrator of PostgreSQL.
//! Must not know when a fault is caused.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use sqlx::Executor;
use sqlx::postgres::PgConnection;
use url::Url;

use super::interface::LOCK;
use super::link::{self, Link, called, change, run};
use super::tables::{self, Words};
use super::{Admin, Held, Scene};
use crate::chaos::check::Found;
use crate::chaos::fault::Fault;

const WORDS: Words = Words { number: "number BIGSERIAL PRIMARY KEY", tail: "" };
/// The user of the writer.
const WRITER: &str = "chaos_writer";
const PASSWORD: &str = "chaos";

/// The administrator of one server.
#[derive(Debug)]
pub(in crate::chaos) struct Postgres {
    dsn: Url,
}

impl Postgres {
    pub(in crate::chaos) fn new(dsn: &str) -> Result<Self> {
        Ok(Self { dsn: Url::parse(dsn).context("the DSN of the server")? })
    }

    async fn connect(&self) -> Result<PgConnection> {
        let mut link: PgConnection = link::connect(&self.dsn).await?;
        // It must work while the server is read-only.
        called(Link::execute(&mut link, "SET default_transaction_read_only = off")).await?;
        called(Link::execute(&mut link, &format!("SET lock_timeout = {}", LOCK.as_millis()))).await?;
        Ok(link)
    }

    async fn run(&self, statements: &[String]) -> Result<()> {
        run(&mut self.connect().await?, statements).await
    }

    /// The statements that create the tables, with a trigger for each version.
    fn create_tables(scene: &Scene) -> Vec<String> {
        let (keyed, history) = (&scene.names.keyed, &scene.names.history);
        let mut statements = tables::create(scene, &WORDS);
        statements.push(format!(
            "CREATE TRIGGER {history}_trigger AFTER INSERT OR UPDATE ON {keyed} FOR EACH ROW EXECUTE FUNCTION {history}_f()"
        ));
        statements.extend(tables::each(scene, |table| {
            format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {WRITER}")
        }));
        statements
    }
}

fn end_sessions() -> String {
    format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{WRITER}'")
}

#[async_trait]
impl Link for PgConnection {
    async fn execute(&mut self, statement: &str) -> sqlx::Result<()> {
        Executor::execute(self, sqlx::raw_sql(statement)).await.map(drop)
    }

    fn is_lock_timeout(error: &sqlx::Error) -> bool {
        error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03")
    }

    async fn rows(&mut self, query: &str) -> sqlx::Result<Vec<(i64, i64, i64)>> {
        sqlx::query_as(query).fetch_all(self).await
    }
}

#[async_trait]
impl Admin for Postgres {
    fn server(&self) -> Option<String> {
        link::server(&self.dsn)
    }

    fn writer_dsn(&self, address: Option<SocketAddr>) -> Result<String> {
        let address = address.context("the writer needs the address of the server")?;
        Ok(format!("postgres://{WRITER}:{PASSWORD}@{address}{}?sslmode=disable", self.dsn.path()))
    }

    async fn create(&self, scene: &Scene) -> Result<()> {
        let history = &scene.names.history;
        let mut statements = vec![
            format!(
                "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{WRITER}') THEN CREATE ROLE {WRITER} LOGIN \
                 PASSWORD '{PASSWORD}'; END IF; END $$"
            ),
            // For the table of positions.
            format!("GRANT CREATE ON SCHEMA public TO {WRITER}"),
            tables::create_history(scene, &WORDS),
            format!(
                "CREATE FUNCTION {history}_f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO {history} \
                 (id, producer, seq) VALUES (NEW.id, NEW.producer, NEW.seq); RETURN NULL; END $$"
            ),
        ];
        statements.extend(Self::create_tables(scene));
        self.run(&statements).await
    }

    async fn begin(&self, fault: Fault, scene: &mut Scene) -> Result<Held> {
        let keyed = &scene.names.keyed;
        let mut link = self.connect().await?;
        let statements = match fault {
            Fault::SessionsTerminated => vec![end_sessions()],
            Fault::PoolExhausted => vec![format!("ALTER ROLE {WRITER} CONNECTION LIMIT 0"), end_sessions()],
            Fault::PasswordWrong => vec![format!("ALTER ROLE {WRITER} PASSWORD 'another'"), end_sessions()],
            Fault::ReadOnly => vec![
                "ALTER SYSTEM SET default_transaction_read_only = on".to_owned(),
                "SELECT pg_reload_conf()".to_owned(),
            ],
            Fault::RightRevoked => tables::each(scene, |table| format!("REVOKE INSERT ON {table} FROM {WRITER}")),
            Fault::ColumnAdded => tables::each(scene, |table| format!("ALTER TABLE {table} ADD COLUMN extra TEXT")),
            Fault::TableRecreated => tables::take_away(scene),
            Fault::RowLocked => {
                let lock = format!("SELECT 1 FROM {keyed} WHERE id = (SELECT max(id) FROM {keyed}) FOR UPDATE");
                run(&mut link, &["BEGIN".to_owned(), lock]).await?;
                return Ok(Some(Box::new(link)));
            }
            Fault::TableLocked => {
                let lock = format!("LOCK TABLE {keyed} IN ACCESS EXCLUSIVE MODE");
                run(&mut link, &["BEGIN".to_owned(), lock]).await?;
                return Ok(Some(Box::new(link)));
            }
            other => bail!("{} is not a fault inside of PostgreSQL", other.name()),
        };
        change(&mut link, &statements, scene).await?;
        scene.gone += u32::from(fault == Fault::TableRecreated);
        Ok(None)
    }

    async fn end(&self, fault: Fault, scene: &mut Scene, held: Held) -> Result<()> {
        // The end of the connection releases its locks.
        drop(held);
        let statements = match fault {
            Fault::SessionsTerminated => vec![end_sessions()],
            Fault::PoolExhausted => vec![format!("ALTER ROLE {WRITER} CONNECTION LIMIT -1")],
            Fault::PasswordWrong => vec![format!("ALTER ROLE {WRITER} PASSWORD '{PASSWORD}'")],
            Fault::ReadOnly => vec![
                "ALTER SYSTEM RESET default_transaction_read_only".to_owned(),
                "SELECT pg_reload_conf()".to_owned(),
            ],
            Fault::RightRevoked => tables::each(scene, |table| format!("GRANT INSERT ON {table} TO {WRITER}")),
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
