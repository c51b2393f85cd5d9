//! The stack in containers: `docker/docker-compose.monitoring.yml`, and how containers reach this machine.
//! Must not know why Docker was selected.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;

use super::options::Options;
use crate::{
    cargo, interrupt,
    servers::{self, Account, Keeper, docker, prometheus},
};

/// Relative to the root of the repository.
pub(super) const FILE: &str = "docker/docker-compose.monitoring.yml";
/// The name of the Docker project: names of containers and volumes begin with it.
pub(super) const PROJECT: &str = "batchsql-monitoring";
const SERVICES: [&str; 2] = ["prometheus", "grafana"];
/// Limit for stopping all containers; each has ten seconds.
const END: Duration = Duration::from_secs(120);

/// How a container reaches programs of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// The engine is in a virtual machine, which forwards to the loopback interface of this one.
    Loopback,
    /// At the address of the bridge, on which the programs must listen.
    Bridge(IpAddr),
}

impl Reach {
    /// The addresses on which a suite must listen.
    pub(super) fn bind(&self) -> Vec<IpAddr> {
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        match self {
            Self::Loopback => vec![local],
            Self::Bridge(address) => vec![local, *address],
        }
    }

    /// Asks the engine; an error is a part of a sentence.
    pub(super) fn find() -> Result<Self, String> {
        if cfg!(target_os = "macos") || ask(&["info", "--format", "{{.OperatingSystem}}"]) == "Docker Desktop" {
            return Ok(Self::Loopback);
        }
        let told = ask(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]);
        let Ok(address) = told.parse::<IpAddr>() else {
            return Err("Docker does not report the address of its bridge, which containers need".to_owned());
        };
        // A rootless engine has its bridge in another network namespace.
        match TcpListener::bind((address, 0)) {
            Ok(_) => Ok(Self::Bridge(address)),
            Err(_) => Err(format!(
                "containers cannot reach this machine: the address of Docker's bridge, {address}, is not here (an engine \
                 without root, or on another machine)"
            )),
        }
    }
}

/// The output of Docker; empty if it fails or does not respond.
fn ask(arguments: &[&str]) -> String {
    docker::ask(&mut docker::docker(arguments), docker::PATIENCE).ok().flatten().unwrap_or_default()
}

/// The Docker project of one start.
pub(super) struct Project {
    settings: [(&'static str, String); 5],
}

impl Project {
    /// The ports must be free; `targets` is the folder with the files of [`prometheus::write_targets`].
    pub(super) fn new(options: &Options, prometheus_port: u16, grafana_port: u16, targets: &Path) -> Self {
        let settings = [
            ("BATCHSQL_PROMETHEUS_PORT", prometheus_port.to_string()),
            ("BATCHSQL_GRAFANA_PORT", grafana_port.to_string()),
            ("BATCHSQL_RETENTION", options.retention.clone()),
            ("BATCHSQL_TARGETS", targets.display().to_string()),
            ("BATCHSQL_MONITORING", options.monitoring().display().to_string()),
        ];
        Self { settings }
    }

    /// Starts it with a keeper, which removes the containers however this program ends. Volumes stay.
    pub(super) fn start_kept(&self) -> anyhow::Result<Keeper> {
        let mut keeper = Keeper::start("monitor", Account::Caller, |folder| {
            let mut shell = docker::keeper(folder, &SERVICES.join(" "), docker::Data::Keep);
            describe(shell.arg("docker")).envs(self.settings.clone());
            shell
        })?;
        let created = keeper.tell_within("create", docker::DOWNLOAD);
        interrupt::check()?;
        created.context("docker compose could not create the containers, see above")?;
        let ready = keeper.tell("wait");
        interrupt::check()?;
        ready.with_context(|| format!("the containers did not become ready\n{}", last_words()))?;
        Ok(keeper)
    }

    /// Starts it so that it runs without this program.
    pub(super) fn start_detached(&self) -> anyhow::Result<()> {
        let mut up = compose(&["up", "--detach", "--wait", "--wait-timeout", "240"]);
        up.envs(self.settings.clone()).stdout(std::io::stderr());
        let status = interrupt::status(&mut up).context("cannot start docker")?;
        if let Err(error) = interrupt::check() {
            down(false)?;
            return Err(error);
        }
        if !status.success() {
            let words = last_words();
            down(false)?;
            anyhow::bail!("the containers did not become ready\n{words}");
        }
        Ok(())
    }
}

/// The files with targets that containers see.
pub(super) fn write_targets(folder: &Path, options: &Options) -> anyhow::Result<PathBuf> {
    let here = |port| vec![format!("host.docker.internal:{port}")];
    let settings =
        prometheus::Settings { suite: here(options.metrics_port), app: here(options.app_port), ..Default::default() };
    let folder = folder.join("targets");
    prometheus::write_targets(&folder, &settings)?;
    Ok(folder)
}

/// Removes the containers and, if requested, the volumes with the history.
pub(super) fn down(volumes: bool) -> anyhow::Result<()> {
    let mut down = compose(&["down", "--timeout", "10"]);
    if volumes {
        down.arg("--volumes");
    }
    let done = docker::ask_in_any_case(&mut down, END).map_err(|why| anyhow::anyhow!("{why}; {FIRST_DOCKER}"))?;
    done.context("docker compose could not remove the containers, see above")?;
    Ok(())
}

const FIRST_DOCKER: &str = "repair Docker, then run `cargo xtask monitor down` to remove the containers";

/// Whether there are containers of the project, including stopped ones; false without Docker.
///
/// # Errors
/// Docker does not respond.
pub(super) fn has_containers() -> anyhow::Result<bool> {
    if servers::program(&["docker"]).is_none() {
        return Ok(false);
    }
    let mut ps = compose(&["ps", "--all", "--quiet"]);
    let found = docker::ask(ps.stderr(Stdio::null()), docker::PATIENCE);
    let found = found.map_err(|why| anyhow::anyhow!("cannot tell whether the monitor runs: {why}; {FIRST_DOCKER}"))?;
    Ok(found.is_some_and(|found| !found.is_empty()))
}

/// The services that have stopped; empty if Docker does not respond.
pub(super) fn ended() -> Vec<&'static str> {
    let mut ps = compose(&["ps", "--services", "--status", "running"]);
    let Ok(Some(running)) = docker::ask(ps.stderr(Stdio::null()), docker::PATIENCE) else { return Vec::new() };
    SERVICES.into_iter().filter(|service| !running.lines().any(|line| line.trim() == *service)).collect()
}

/// The command that shows logs.
pub(super) fn logs(follow: bool, lines: usize, services: &[&str]) -> Command {
    let mut logs = compose(&["logs", "--tail"]);
    logs.arg(lines.to_string());
    if follow {
        logs.arg("--follow");
    }
    logs.args(services);
    logs
}

/// The end of the containers' logs.
pub(super) fn last_words() -> String {
    let mut logs = logs(false, 20, &[]);
    docker::ask_in_any_case(logs.stderr(Stdio::null()), docker::PATIENCE).ok().flatten().unwrap_or_default()
}

fn compose(arguments: &[&str]) -> Command {
    let mut docker = Command::new("docker");
    describe(&mut docker).args(arguments);
    docker
}

/// Adds the arguments that select the project.
fn describe(docker: &mut Command) -> &mut Command {
    docker.args(["compose", "-p", PROJECT, "-f"]).arg(cargo::workspace_root().join(FILE))
}
