//! Owns the servers of a database's runs: the database and NATS, started here and killed as a fault.
//! Must not know when.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use batchsql_testserver::{Kind, Server};
use tokio::task::spawn_blocking;

use crate::chaos::job::Names;
use crate::chaos::sample::now;
use crate::chaos::stage::{Servant, Stage};
use crate::database::DatabaseName;

/// The servers.
#[derive(Clone)]
pub(super) struct Servers {
    pub(super) database: DatabaseName,
    target: Servant,
    nats: Arc<Mutex<Server>>,
    url: String,
}

/// The tables of a run, new ones.
pub(super) struct Tables {
    pub(super) names: Names,
    pub(super) stage: Stage,
}

impl Servers {
    pub(super) async fn start(database: DatabaseName) -> Result<Self> {
        let target = Servant::start(database, None, true).await?.context("SQLite has no server for several workers")?;
        let nats = spawn_blocking(|| Server::start(Kind::Nats, &[]))
            .await
            .context("NATS did not start; the reason is above")?;
        let url = nats.dsn().to_owned();
        Ok(Self { database, target, nats: Arc::new(Mutex::new(nats)), url })
    }

    /// The address of NATS.
    pub(super) fn nats(&self) -> &str {
        &self.url
    }

    /// The DSN of the database, without a proxy.
    pub(super) fn dsn(&self) -> &str {
        self.target.dsn()
    }

    /// Creates tables with names that no other run has.
    pub(super) async fn tables(&self, folder: &Path, seed: u64) -> Result<Tables> {
        let names = Names::new(&format!("scale_{:x}", now() & 0xffff_ffff));
        let stage =
            Stage::set(None, self.database, Some(self.target.clone()), None, folder, names.clone(), seed).await?;
        Ok(Tables { names, stage })
    }

    /// `kill -9` of NATS.
    pub(super) async fn kill_nats(&self) -> Result<()> {
        self.of_nats(Server::kill).await
    }

    /// Starts it again on its files.
    pub(super) async fn start_nats(&self) -> Result<()> {
        self.of_nats(Server::start_again).await
    }

    async fn of_nats(&self, action: fn(&mut Server)) -> Result<()> {
        let nats = Arc::clone(&self.nats);
        let act = move || action(&mut nats.lock().unwrap_or_else(PoisonError::into_inner));
        spawn_blocking(act).await.context("NATS did not obey; the reason is above")
    }
}
