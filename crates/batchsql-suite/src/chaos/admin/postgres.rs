//! Owns the administrator of PostgreSQL.
//! Must not know when a fault is caused.

use std::future::Future;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::interface::{CALL, PATIENCE, PAUSE};
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

    /// A connection. A server that is being started is waited for.
    async fn connect(&self) -> Result<PgConnection> {
        let begin = Instant::now();
        loop {
            match called(PgConnection::connect(self.dsn.as_str())).await {
                Ok(mut link) => {
                    // It must work while the server is read-only.
                    called(link.execute("SET default_transaction_read_only = off")).await?;
                    return Ok(link);
                }
                Err(error) if begin.elapsed() > PATIENCE => return Err(error.context("cannot reach the server")),
                Err(_) => sleep(PAUSE).await,
            }
        }
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

async fn called<T>(call: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    Ok(timeout(CALL, call).await.context("the server did not answer")??)
}

async fn run(link: &mut PgConnection, statements: &[String]) -> Result<()> {
    for statement in statements {
        called(link.execute(sqlx::raw_sql(statement))).await.with_context(|| statement.clone())?;
    }
    Ok(())
}

fn end_sessions() -> String {
    format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{WRITER}'")
}

#[async_trait]
impl Admin for Postgres {
    fn server(&self) -> Option<String> {
        Some(format!("{}:{}", self.dsn.host_str()?, self.dsn.port()?))
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
            Fault::TableRecreated => {
                let statements = tables::take_away(scene);
                scene.gone += 1;
                statements
            }
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
        run(&mut link, &statements).await?;
        Ok(None)
    }

    async fn end(&self, fault: Fault, scene: &Scene, held: Held) -> Result<()> {
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
        self.run(&statements).await
    }

    async fn read(&self, scene: &Scene) -> Result<Found> {
        let mut link = self.connect().await?;
        let mut found = Found::default();
        for (table, query) in tables::queries(scene) {
            found.tables.entry(table).or_default().push(rows(&mut link, &query).await?);
        }
        found.history = Some(rows(&mut link, &tables::history(scene)).await?);
        Ok(found)
    }

    fn refuses_bad_rows(&self) -> bool {
        true
    }
}

async fn rows(link: &mut PgConnection, query: &str) -> Result<Vec<crate::chaos::check::FoundRow>> {
    let rows = called(sqlx::query(query).fetch_all(link)).await.with_context(|| query.to_owned())?;
    rows.iter().map(|row| tables::found(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)).collect()
}
