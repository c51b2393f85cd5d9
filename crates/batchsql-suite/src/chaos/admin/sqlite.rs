//! Owns the administrator of SQLite: another connection to the file.
//! Must not know when a fault is caused.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use batchsql::sqlite::rusqlite::{Connection, Row};
use tokio::task::spawn_blocking;

use super::interface::CALL;
use super::tables::{self, Words};
use super::{Admin, Held, Scene};
use crate::chaos::check::{Found, FoundRow};
use crate::chaos::fault::Fault;

const WORDS: Words = Words { number: "number INTEGER PRIMARY KEY AUTOINCREMENT", tail: "" };

/// The administrator of one file.
#[derive(Debug)]
pub(in crate::chaos) struct Sqlite {
    path: PathBuf,
}

impl Sqlite {
    pub(in crate::chaos) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Runs statements on a new connection, which is returned.
    async fn run(&self, statements: Vec<String>) -> Result<Connection> {
        let path = self.path.clone();
        let run = move || {
            let link = Connection::open(&path)?;
            link.busy_timeout(CALL)?;
            for statement in statements {
                link.execute_batch(&statement).with_context(|| statement.clone())?;
            }
            anyhow::Ok(link)
        };
        spawn_blocking(run).await.context("a panic")?
    }

    /// The statements that create the tables, with triggers for each version.
    fn create_tables(scene: &Scene) -> Vec<String> {
        let (keyed, history) = (&scene.names.keyed, &scene.names.history);
        let mut statements = tables::create(scene, &WORDS);
        for event in ["INSERT", "UPDATE"] {
            statements.push(format!(
                "CREATE TRIGGER {history}_{event}_{} AFTER {event} ON {keyed} BEGIN INSERT INTO {history} (id, producer, seq) \
                 VALUES (NEW.id, NEW.producer, NEW.seq); END",
                scene.gone
            ));
        }
        statements
    }
}

#[async_trait]
impl Admin for Sqlite {
    fn server(&self) -> Option<String> {
        None
    }

    fn writer_dsn(&self, _: Option<SocketAddr>) -> Result<String> {
        Ok(format!("sqlite:{}", self.path.display()))
    }

    async fn create(&self, scene: &Scene) -> Result<()> {
        let mut statements = vec![tables::create_history(scene, &WORDS)];
        statements.extend(Self::create_tables(scene));
        self.run(statements).await.map(drop)
    }

    async fn begin(&self, fault: Fault, scene: &mut Scene) -> Result<Held> {
        let statements = match fault {
            Fault::ColumnAdded => tables::each(scene, |table| format!("ALTER TABLE {table} ADD COLUMN extra TEXT")),
            Fault::TableRecreated => {
                let statements = tables::take_away(scene);
                scene.gone += 1;
                // In one transaction, because the triggers name their table.
                vec![format!("BEGIN IMMEDIATE; {}; COMMIT", statements.join("; "))]
            }
            Fault::TableLocked => return Ok(Some(Box::new(self.run(vec!["BEGIN IMMEDIATE".to_owned()]).await?))),
            other => bail!("{} is not a fault inside of SQLite", other.name()),
        };
        self.run(statements).await?;
        Ok(None)
    }

    async fn end(&self, fault: Fault, scene: &mut Scene, held: Held) -> Result<()> {
        // The end of the connection releases its lock.
        drop(held);
        let statements = match fault {
            Fault::ColumnAdded => tables::each(scene, |table| format!("ALTER TABLE {table} DROP COLUMN extra")),
            Fault::TableRecreated => {
                vec![format!("BEGIN IMMEDIATE; {}; COMMIT", Self::create_tables(scene).join("; "))]
            }
            _ => return Ok(()),
        };
        self.run(statements).await.map(drop)
    }

    async fn read(&self, scene: &Scene) -> Result<Found> {
        let link = self.run(Vec::new()).await?;
        let mut found = Found::default();
        for (table, query) in tables::queries(scene) {
            found.tables.entry(table).or_default().push(rows(&link, &query)?);
        }
        found.history = Some(rows(&link, &tables::history(scene))?);
        Ok(found)
    }

    fn refuses_bad_rows(&self) -> bool {
        true
    }
}

fn rows(link: &Connection, query: &str) -> Result<Vec<FoundRow>> {
    let mut statement = link.prepare(query).with_context(|| query.to_owned())?;
    let numbers = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let rows = statement.query_map([], numbers)?;
    rows.map(|row| row.map_err(Into::into).and_then(|(id, producer, seq)| tables::found(id, producer, seq))).collect()
}
