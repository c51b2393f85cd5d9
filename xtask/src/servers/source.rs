//! The source of a server: the user's own, the programs of this machine, Docker, or packages, in this order.
//! Must not know how a server is started.

use std::{env, fmt, path::Path, sync::OnceLock, thread};

use super::{
    certificates, docker, find,
    kind::Kind,
    mysql, nats,
    packages::{self, Refusal},
    pgbouncer, postgres, prometheus, random, redis,
    server::{Purpose, Server},
    wheels,
};
use crate::interrupt;

/// Finds and starts servers for one run.
#[derive(Debug)]
pub(crate) struct Sources {
    may_install: bool,
    docker_only: bool,
    /// Checked once, and only if needed, because that may take seconds.
    engine: OnceLock<Result<(), String>>,
}

/// An available server and its source. A started one is stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Provided {
    pub(crate) dsn: String,
    origin: String,
    _started: Option<Server>,
}

impl fmt::Display for Provided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

/// The source of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Programs,
    Docker,
    Packages,
}

/// Why there is no source of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Missing {
    engine: String,
    refusal: Refusal,
}

/// Implements the order. The engine is checked only if needed.
fn choose(
    programs: bool,
    engine: impl FnOnce() -> Result<(), String>,
    packages: Result<(), Refusal>,
) -> Result<Choice, Missing> {
    if programs {
        return Ok(Choice::Programs);
    }
    match (engine(), packages) {
        (Ok(()), _) => Ok(Choice::Docker),
        (Err(_), Ok(())) => Ok(Choice::Packages),
        (Err(engine), Err(refusal)) => Err(Missing { engine, refusal }),
    }
}

impl Missing {
    fn advice(&self, kind: Kind) -> String {
        if let Some(package) = wheels::package(kind) {
            let found = if kind == Kind::Nats { "is not on this machine in version 2.11 or later, and " } else { "" };
            let dsn =
                kind.variable().map_or_else(String::new, |variable| format!("; set {variable} to a server for tests"));
            return format!(
                "{} {found}comes from the Python package `{package}`, which may not be downloaded{dsn}",
                kind.title()
            );
        }
        let (title, packages) = (kind.title(), kind.packages().join("`, `"));
        let dsn =
            kind.variable().map_or_else(String::new, |variable| format!(", or set {variable} to a server for tests"));
        let docker = if docker::has(kind) { ", or start Docker" } else { "" };
        format!(
            "{title} is not on this machine, {}, and {}; install it (Debian, Ubuntu: `{packages}`){docker}{dsn}",
            self.engine,
            self.refusal.reason(),
        )
    }
}

/// The programs of a kind of server.
enum Programs {
    Postgres(postgres::Programs),
    PgBouncer(pgbouncer::Programs),
    MySql(mysql::Programs),
    Redis(redis::Programs),
    Prometheus(prometheus::Programs),
    Nats(nats::Programs),
}

impl Programs {
    fn find(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Postgres => postgres::Programs::find().map(Self::Postgres),
            Kind::PgBouncer => pgbouncer::Programs::find().map(Self::PgBouncer),
            Kind::MySql => mysql::Programs::find().map(Self::MySql),
            Kind::Redis | Kind::RedisCluster => redis::Programs::find().map(Self::Redis),
            Kind::Prometheus => prometheus::Programs::find().map(Self::Prometheus),
            Kind::Nats => {
                let kept = || nats::Programs::of(wheels::kept(kind)?.join(nats::PROGRAM));
                nats::Programs::find().or_else(kept).map(Self::Nats)
            }
            Kind::Postgres18 => wheels::kept(kind).map(|folder| Self::Postgres(postgres::Programs::of_wheel(&folder))),
            Kind::Valkey => {
                let server = wheels::kept(kind)?.join("valkey-server");
                redis::Programs::of(server).map(Self::Redis)
            }
        }
    }

    fn place(&self) -> &Path {
        match self {
            Self::Postgres(programs) => programs.place(),
            Self::PgBouncer(programs) => programs.place(),
            Self::MySql(programs) => programs.place(),
            Self::Redis(programs) => programs.place(),
            Self::Prometheus(programs) => programs.place(),
            Self::Nats(programs) => programs.place(),
        }
    }

    fn start(&self, kind: Kind, arguments: &[String], purpose: Purpose) -> anyhow::Result<Server> {
        match self {
            Self::Postgres(programs) => postgres::start(programs, arguments, purpose, &random::password()?),
            Self::PgBouncer(programs) => pgbouncer::start(programs, arguments, purpose),
            Self::MySql(programs) => mysql::start(programs, arguments, purpose),
            Self::Redis(programs) if kind == Kind::RedisCluster => redis::start_cluster(programs, arguments),
            Self::Redis(programs) => redis::start(programs, arguments),
            Self::Prometheus(programs) => prometheus::start(programs, arguments),
            Self::Nats(programs) => nats::start(programs, arguments),
        }
    }
}

impl Sources {
    /// BATCHSQL_NO_INSTALL also forbids installation.
    pub(crate) fn new(may_install: bool) -> Self {
        let may_install = may_install && !forbids(env::var("BATCHSQL_NO_INSTALL").ok());
        Self { may_install, docker_only: false, engine: OnceLock::new() }
    }

    /// Only Docker.
    pub(crate) fn docker() -> Self {
        Self { may_install: false, docker_only: true, engine: OnceLock::new() }
    }

    /// Installs the programs that these servers need and that nothing else provides. A failure is reported when the
    /// server is needed.
    pub(crate) fn install(&self, kinds: &[Kind]) {
        self.download(kinds);
        let missing = kinds.iter().filter(|kind| self.choose(**kind) == Ok(Choice::Packages));
        // A refusal matters only if a server is missing, and is reported then.
        let _ = self.install_packages(kinds, missing.flat_map(|kind| kind.packages()).copied().collect());
    }

    /// Downloads the wheels of these servers. A failure is reported when the server is needed.
    fn download(&self, kinds: &[Kind]) {
        let missing = kinds.iter().filter(|kind| wheels::package(**kind).is_some() && self.programs(**kind).is_none());
        for kind in missing.filter(|_| self.may_install) {
            if let Err(error) = wheels::provide(*kind) {
                eprintln!("{}: {error:#}", kind.title());
            }
        }
    }

    /// Installs the programs of these servers and further packages together, even if Docker could provide the servers:
    /// a server in a container cannot be reached by its socket, and does not see the files of a test.
    pub(crate) fn install_programs(&self, kinds: &[Kind], further: &[&'static str]) -> Result<(), Refusal> {
        self.download(kinds);
        let missing = kinds.iter().filter(|kind| self.programs(**kind).is_none());
        let packages = missing.flat_map(|kind| kind.packages()).chain(further).copied().collect();
        self.install_packages(kinds, packages)
    }

    fn install_packages(&self, kinds: &[Kind], mut needed: Vec<&'static str>) -> Result<(), Refusal> {
        let without = [Kind::Redis, Kind::RedisCluster, Kind::Prometheus, Kind::Nats, Kind::Valkey];
        let with_tls = kinds.iter().any(|kind| !without.contains(kind));
        if with_tls && find::program(&[certificates::PROGRAM]).is_none() {
            needed.push(certificates::PROGRAM);
        }
        needed.sort_unstable();
        needed.dedup();
        if needed.is_empty() {
            return Ok(());
        }
        packages::install(packages::way(self.may_install)?, &needed);
        Ok(())
    }

    /// The shared server of this run: from the DSN in the environment, or started now.
    pub(crate) fn shared(&self, kind: Kind, purpose: Purpose) -> anyhow::Result<Provided> {
        let variable = kind.variable().expect("only kinds with a variable are shared");
        if let Some(dsn) = given(env::var(variable).ok()) {
            return Ok(Provided { dsn, origin: format!("from {variable}"), _started: None });
        }
        let (server, origin) = self.start(kind, &[], purpose)?;
        let tls = if server.authority.is_none() && !matches!(kind.family(), Kind::Redis | Kind::Nats) {
            ", without TLS"
        } else {
            ""
        };
        Ok(Provided { dsn: server.dsn.clone(), origin: format!("{origin}{tls}"), _started: Some(server) })
    }

    /// All shared servers of this run, started at the same time.
    pub(crate) fn all_shared(&self, kinds: &[Kind], purpose: Purpose) -> Vec<(Kind, anyhow::Result<Provided>)> {
        thread::scope(|scope| {
            let start = |kind| (kind, scope.spawn(move || self.shared(kind, purpose)));
            let started: Vec<_> = kinds.iter().copied().map(start).collect();
            let outcome = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("starting it panicked, see above")))
            };
            started.into_iter().map(|(kind, thread)| (kind, outcome(thread))).collect()
        })
    }

    /// A server only for this caller, and its source.
    pub(crate) fn start(&self, kind: Kind, arguments: &[String], purpose: Purpose) -> anyhow::Result<(Server, String)> {
        interrupt::check()?;
        if let Some(programs) = self.programs(kind) {
            let server = programs.start(kind, arguments, purpose)?;
            return Ok((server, format!("started {}", programs.place().display())));
        }
        match self.choose(kind) {
            Ok(Choice::Docker) => {
                let server = docker::start(kind, arguments, purpose)?;
                Ok((server, format!("started by Docker, {}", docker::FILE)))
            }
            Ok(_) => anyhow::bail!("{} is missing, and installing it failed, see above", kind.title()),
            Err(missing) if self.docker_only => anyhow::bail!("cannot use Docker: {}", missing.engine),
            Err(missing) => anyhow::bail!(missing.advice(kind)),
        }
    }

    /// Whether such a server could be started; otherwise what to do.
    pub(crate) fn check(&self, kind: Kind) -> Result<(), String> {
        match self.choose(kind) {
            Ok(Choice::Packages) => Err(format!("{} is missing, and installing it failed, see above", kind.title())),
            Ok(_) => Ok(()),
            Err(missing) => Err(missing.advice(kind)),
        }
    }

    fn programs(&self, kind: Kind) -> Option<Programs> {
        Programs::find(kind).filter(|_| !self.docker_only)
    }

    fn choose(&self, kind: Kind) -> Result<Choice, Missing> {
        let engine = || match docker::has(kind) {
            true => self.engine.get_or_init(docker::engine).clone(),
            false => Err("the Docker file has none".to_owned()),
        };
        choose(self.programs(kind).is_some(), engine, packages::way(self.may_install).map(drop))
    }
}

/// Whether the variable is set to a true value; empty, `0`, `false`, `no`, `off` and their first letters are false.
fn forbids(variable: Option<String>) -> bool {
    let no = ["", "0", "f", "false", "n", "no", "off"];
    variable.is_some_and(|value| !no.contains(&value.to_lowercase().as_str()))
}

/// An empty variable counts as not set.
fn given(variable: Option<String>) -> Option<String> {
    variable.filter(|dsn| !dsn.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_ENGINE: Result<(), &str> = Err("no engine");

    fn check(programs: bool, engine: Result<(), &str>, packages: Result<(), Refusal>, expected: Option<Choice>) {
        let choice = choose(programs, || engine.map_err(str::to_owned), packages);
        assert_eq!(choice.ok(), expected);
    }

    #[test]
    fn programs_come_before_docker_and_docker_before_packages() {
        check(true, Ok(()), Ok(()), Some(Choice::Programs));
        check(true, NO_ENGINE, Err(Refusal::Forbidden), Some(Choice::Programs));
        check(false, Ok(()), Ok(()), Some(Choice::Docker));
        check(false, Ok(()), Err(Refusal::Forbidden), Some(Choice::Docker));
        check(false, NO_ENGINE, Ok(()), Some(Choice::Packages));
        check(false, NO_ENGINE, Err(Refusal::NoRights), None);
    }

    #[test]
    fn an_engine_is_asked_only_when_it_matters() {
        let choice = choose(true, || panic!("must not be called"), Ok(()));
        assert_eq!(choice, Ok(Choice::Programs));
    }

    #[test]
    fn the_advice_names_every_way() {
        let missing = Missing { engine: "no Docker engine answers".into(), refusal: Refusal::Forbidden };
        assert_eq!(
            missing.advice(Kind::Redis),
            "Redis is not on this machine, no Docker engine answers, and --no-install forbids its installation; \
             install it (Debian, Ubuntu: `redis-server`), or start Docker, or set REDIS_DSN to a server for tests"
        );
        let missing = Missing { engine: "the Docker file has none".into(), refusal: Refusal::NoApt };
        let advice = missing.advice(Kind::PgBouncer);
        assert!(advice.contains("`pgbouncer`, `postgresql`") && !advice.contains("set "), "{advice}");
    }

    #[test]
    fn a_variable_forbids_to_install_unless_it_says_no() {
        for (value, expected) in [(Some("1"), true), (Some("yes"), true), (Some("0"), false), (Some("False"), false)] {
            assert_eq!(forbids(value.map(str::to_owned)), expected, "{value:?}");
        }
        assert!(!forbids(Some(String::new())) && !forbids(None));
    }

    #[test]
    fn an_empty_variable_names_no_server() {
        assert_eq!(given(Some("redis://h".into())).as_deref(), Some("redis://h"));
        assert_eq!(given(Some(" ".into())), None);
        assert_eq!(given(None), None);
    }
}
