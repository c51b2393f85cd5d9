//! Owns what a run needs besides its writer: the server, the proxy before it, the disk and the administrator, and how each
//! fault begins and ends. Must not know when a fault is caused, or what is checked.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Error, Result};
use batchsql_testserver::{Conditions, Kind, NetworkProxy, Server};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::admin::{self, Admin, Held, NotLocked, Scene};
use super::check::Found;
use super::disk::SmallDisk;
use super::fault::{Fault, Layer};
use super::job::Names;
use super::namespace::Namespace;
use crate::database::DatabaseName;

/// One answer in so many is lost. Opening a connection takes several, and must succeed at times.
const ONE_ANSWER_IN: u32 = 6;
const SLOW: u32 = 8 << 10;
/// How long a fault is put off, and the pause between two tries.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// A server that this program started.
#[derive(Clone)]
pub(super) struct Servant {
    server: Arc<Mutex<Server>>,
    dsn: String,
    /// Its files, if they are on a small disk. Unmounted after the server has ended.
    disk: Option<Arc<SmallDisk>>,
}

impl Servant {
    /// Starts a server; `None` for SQLite without a disk.
    pub(super) async fn start(
        database: DatabaseName,
        disk: Option<Arc<SmallDisk>>,
        keeps_commits: bool,
    ) -> Result<Option<Self>> {
        let (kind, arguments) = match database {
            DatabaseName::Sqlite => return Ok(None),
            DatabaseName::Postgres => (Kind::Postgres, words(&["-c", "max_wal_size=64MB", "-c", "min_wal_size=32MB"])),
            // Positions are refused on a server that may lose commits.
            DatabaseName::Mysql if keeps_commits => (Kind::MySql, words(&["--innodb-flush-log-at-trx-commit=1"])),
            DatabaseName::Mysql => (Kind::MySql, Vec::new()),
            DatabaseName::Redis => (Kind::Redis, admin::Redis::arguments()),
        };
        let folder = disk.clone();
        let start = move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Server::start_in(kind, &arguments, folder.as_deref().map(SmallDisk::path))
        };
        let server = spawn_blocking(start).await.context("the server did not start; the reason is above")?;
        let dsn = server.dsn().to_owned();
        Ok(Some(Self { server: Arc::new(Mutex::new(server)), dsn, disk }))
    }

    /// The DSN of a user with every right.
    pub(super) fn dsn(&self) -> &str {
        &self.dsn
    }

    /// Does something to it, on a thread where it may take long.
    async fn make(&self, action: impl FnOnce(&mut Server) + Send + 'static) -> Result<()> {
        let server = Arc::clone(&self.server);
        let act = move || action(&mut server.lock().unwrap_or_else(PoisonError::into_inner));
        spawn_blocking(act).await.context("the server did not obey; the reason is above")
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A run without its writer.
pub(super) struct Stage {
    servant: Option<Servant>,
    /// The disk of a database without a server.
    disk: Option<Arc<SmallDisk>>,
    proxy: Option<NetworkProxy>,
    /// That of the writer, if it has one.
    namespace: Option<Arc<Namespace>>,
    admin: Box<dyn Admin>,
    scene: Scene,
}

/// Whether a fault has not begun or ended because somebody holds a lock: it is tried again, and meanwhile other faults begin and
/// end.
pub(super) fn is_put_off(error: &Error) -> bool {
    error.is::<NotLocked>()
}

/// A fault that is under way.
pub(super) struct Begun {
    fault: Fault,
    held: Held,
}

impl Stage {
    /// Creates the tables `names` on a server, or in a file of `folder`. `namespace` is that of the writer, if it has one.
    pub(super) async fn set(
        namespace: Option<Arc<Namespace>>,
        database: DatabaseName,
        servant: Option<Servant>,
        disk: Option<Arc<SmallDisk>>,
        folder: &Path,
        names: Names,
        seed: u64,
    ) -> Result<Self> {
        let dsn = servant.as_ref().map_or("", |servant| servant.dsn.as_str());
        let admin: Box<dyn Admin> = match database {
            DatabaseName::Postgres => Box::new(admin::Postgres::new(dsn)?),
            DatabaseName::Mysql => Box::new(admin::MySql::new(dsn)?),
            DatabaseName::Redis => Box::new(admin::Redis::new(dsn)?),
            DatabaseName::Sqlite => {
                let folder = disk.as_ref().map_or(folder, |disk| disk.path());
                Box::new(admin::Sqlite::new(folder.join("chaos.db")))
            }
        };
        let proxy = match admin.server() {
            Some(server) => {
                let address = namespace.as_ref().map_or(Ipv4Addr::LOCALHOST, |namespace| namespace.address());
                let proxy = NetworkProxy::start_at(address, server.as_str(), Conditions::default(), seed);
                Some(proxy.context("cannot start the proxy")?)
            }
            None => None,
        };
        let scene = Scene::new(names);
        admin.create(&scene).await.context("cannot create the tables")?;
        Ok(Self { servant, disk, proxy, namespace, admin, scene })
    }

    /// The DSN for a writer.
    pub(super) fn writer_dsn(&self) -> Result<String> {
        self.admin.writer_dsn(self.proxy.as_ref().map(NetworkProxy::address))
    }

    pub(super) fn refuses_bad_rows(&self) -> bool {
        self.admin.refuses_bad_rows()
    }

    /// Reads all tables.
    pub(super) async fn read(&self) -> Result<Found> {
        self.admin.read(&self.scene).await.context("cannot read the tables")
    }

    /// Causes a fault. Those of the writer are not caused here.
    pub(super) async fn begin(&mut self, fault: Fault) -> Result<Begun> {
        let mut held = None;
        match fault.layer() {
            Layer::Server => {
                let servant = self.servant.as_ref().context("there is no server")?;
                match fault {
                    Fault::ServerKilled => servant.make(Server::kill).await?,
                    _ => servant.make(Server::pause).await?,
                }
            }
            Layer::Network => match self.silent_namespace(fault) {
                Some(namespace) => spawn_blocking(move || namespace.silence()).await.context("a panic")??,
                None => self.disturb(fault)?,
            },
            Layer::Database => held = self.admin.begin(fault, &mut self.scene).await?,
            Layer::Disk => {
                let disk = self.small_disk()?;
                spawn_blocking(move || disk.fill()).await.context("a panic")??;
            }
            Layer::Writer => {}
        }
        Ok(Begun { fault, held })
    }

    /// Ends a fault.
    pub(super) async fn end(&mut self, begun: &mut Begun) -> Result<()> {
        let (fault, held) = (begun.fault, begun.held.take());
        match fault.layer() {
            Layer::Server => {
                let servant = self.servant.as_ref().context("there is no server")?;
                match fault {
                    Fault::ServerKilled => servant.make(Server::start_again).await?,
                    _ => servant.make(Server::resume).await?,
                }
            }
            Layer::Network => {
                if let Some(namespace) = self.silent_namespace(fault) {
                    return spawn_blocking(move || namespace.resume()).await.context("a panic")?;
                }
                let proxy = self.proxy.as_ref().context("there is no network")?;
                match fault {
                    Fault::ConnectionsReset => proxy.reset_connections(),
                    // Otherwise their locks would stay for as long as the run.
                    Fault::SessionsLeft => proxy.close_lost_connections(),
                    _ => {}
                }
                proxy.set(Conditions::default());
            }
            Layer::Database => self.admin.end(fault, &mut self.scene, held).await?,
            Layer::Disk => {
                self.small_disk()?.free()?;
                if let Some(servant) = &self.servant {
                    // Some servers end when they cannot write their log.
                    servant.make(Server::start_again).await?;
                }
            }
            Layer::Writer => {}
        }
        Ok(())
    }

    /// Causes a fault in a run where no other one is under way, so that what holds a lock releases it.
    pub(super) async fn begin_alone(&mut self, fault: Fault) -> Result<Begun> {
        let begin = Instant::now();
        loop {
            match self.begin(fault).await {
                Err(error) if is_put_off(&error) && begin.elapsed() < PATIENCE => sleep(PAUSE).await,
                begun => return begun,
            }
        }
    }

    /// Ends it.
    pub(super) async fn end_alone(&mut self, mut begun: Begun) -> Result<()> {
        let begin = Instant::now();
        loop {
            match self.end(&mut begun).await {
                Err(error) if is_put_off(&error) && begin.elapsed() < PATIENCE => sleep(PAUSE).await,
                ended => return ended,
            }
        }
    }

    fn small_disk(&self) -> Result<Arc<SmallDisk>> {
        let of_server = self.servant.as_ref().and_then(|servant| servant.disk.clone());
        of_server.or_else(|| self.disk.clone()).context("there is no small disk")
    }

    /// The namespace in which a fault is caused, in place of the proxy.
    fn silent_namespace(&self, fault: Fault) -> Option<Arc<Namespace>> {
        self.namespace.clone().filter(|_| matches!(fault, Fault::Silence5s | Fault::Silence33s))
    }

    fn disturb(&self, fault: Fault) -> Result<()> {
        let proxy = self.proxy.as_ref().context("there is no network")?;
        let conditions = Conditions::default();
        proxy.set(match fault {
            Fault::RepliesLost => conditions.one_answer_lost_in(ONE_ANSWER_IN),
            Fault::Silence5s | Fault::Silence33s => conditions.silent(),
            Fault::Delay40ms => conditions.delay(Duration::from_millis(40)),
            Fault::Delay500ms => conditions.delay(Duration::from_millis(500)),
            Fault::Delay5s => conditions.delay(Duration::from_secs(5)),
            Fault::Bandwidth => conditions.bytes_per_second(SLOW),
            Fault::ConnectionsReset => {
                proxy.reset_connections();
                conditions
            }
            Fault::HalfOpen => {
                proxy.lose_servers();
                conditions
            }
            Fault::SessionsLeft => {
                proxy.lose_clients();
                conditions
            }
            other => anyhow::bail!("{} is not a fault of the network", other.name()),
        });
        Ok(())
    }
}
