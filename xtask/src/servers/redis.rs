//! Redis from the programs of this machine, alone or as a cluster.
//! Must not know who connects to it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use super::{account::Account, find, keeper::Keeper, port, process::Process, server::Server};

/// The minimum number of nodes of a cluster.
const NODES: usize = 3;

/// The programs.
#[derive(Debug)]
pub(crate) struct Programs {
    server: PathBuf,
    version: u32,
}

impl Programs {
    pub(crate) fn find() -> Option<Self> {
        Self::of(find::program(&["redis-server", "valkey-server"])?)
    }

    /// A program, if it reports its version.
    pub(crate) fn of(server: PathBuf) -> Option<Self> {
        let output = Command::new(&server).arg("--version").output().ok()?;
        Some(Self { version: major_version(&String::from_utf8_lossy(&output.stdout))?, server })
    }

    /// The path of the server.
    pub(crate) fn place(&self) -> &Path {
        &self.server
    }
}

/// The number after `v=` in `Redis server v=7.0.15 sha=…`.
fn major_version(text: &str) -> Option<u32> {
    text.split_whitespace().find_map(|word| word.strip_prefix("v=")?.split('.').next()?.parse().ok())
}

/// Without a password and without files: after a restart the server is empty, unless an argument changes that
/// (`--appendonly yes`).
pub(crate) fn start(programs: &Programs, arguments: &[String]) -> anyhow::Result<Server> {
    let process = node(programs, &[], arguments)?;
    let dsn = format!("redis://127.0.0.1:{}", process.port());
    Ok(Server::new(process, dsn, None))
}

/// The cluster is ready when all nodes know the owner of each of the 16384 slots.
pub(crate) fn start_cluster(programs: &Programs, arguments: &[String]) -> anyhow::Result<Server> {
    let cli = find::beside(&programs.server, &["redis-cli", "valkey-cli"])
        .context("a cluster needs redis-cli, which is missing; install the package `redis-tools`")?;
    let nodes = (0..NODES).map(|_| node(programs, &["--cluster-enabled", "yes"], arguments));
    let mut processes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
    let nodes: Vec<_> = processes.iter().map(|process| format!("127.0.0.1:{}", process.port())).collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(nodes.iter().map(String::as_str));
    create.push("--cluster-yes");
    processes[0].keeper_mut().run(&cli, &create, "")?;

    for process in &mut processes {
        process.set_ready(|_, port| knows_its_cluster(port));
        process.wait()?;
    }
    let dsn = format!("redis://{}?cluster=true", nodes[0]);
    Ok(Server::cluster(processes, dsn))
}

fn node(programs: &Programs, settings: &[&str], arguments: &[String]) -> anyhow::Result<Process> {
    let keeper = Keeper::new("redis", Account::unprivileged(&["redis"])?, "TERM")?;
    let mut fixed = vec!["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"];
    if programs.version >= 7 {
        // Tests inject faults with DEBUG; before version 7 it was always allowed.
        fixed.extend(["--enable-debug-command", "local"]);
    }
    fixed.extend(settings);
    let command = |port: u16| {
        let own = ["--port".to_owned(), port.to_string()].into_iter().chain(fixed.iter().map(|&word| word.to_owned()));
        own.chain(arguments.iter().cloned()).collect()
    };
    Process::start(keeper, &programs.server, |_, port| Ok(command(port)), is_ready)
}

fn is_ready(_: &Path, port: u16) -> bool {
    // A server that still loads its data responds with LOADING.
    ask(port, "PING").is_ok_and(|answer| answer.starts_with("+PONG") || answer.starts_with("-NOAUTH"))
}

fn knows_its_cluster(port: u16) -> bool {
    let complete = |info: &str| {
        ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3"]
            .iter()
            .all(|fact| info.lines().any(|line| line == *fact))
    };
    // A node that requires a password is not checked further.
    ask(port, "CLUSTER INFO").is_ok_and(|info| complete(&info) || info.starts_with("-NOAUTH"))
}

/// The answer to a command: one line, or the text that follows its length.
fn ask(port: u16, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&port::local(port), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut answer = String::new();
    stream.read_line(&mut answer)?;
    if let Some(length) = answer.strip_prefix('$').and_then(|length| length.trim().parse().ok()) {
        answer.clear();
        stream.take(length).read_to_string(&mut answer)?;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major_version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"), Some(7));
        assert_eq!(major_version("Server v=8.1.0 sha=00000000:0"), Some(8));
        assert_eq!(major_version("something else"), None);
    }
}
