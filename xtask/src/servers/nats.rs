//! NATS with JetStream, from the programs of this machine or from a wheel.
//! Must not know who connects to it.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{account::Account, find, keeper::Keeper, port, process::Process, server::Server};

/// The name of the program.
pub(crate) const PROGRAM: &str = "nats-server";

/// The first version with everything that a worker uses.
const OLDEST: (u32, u32) = (2, 11);

/// The programs.
#[derive(Debug)]
pub(crate) struct Programs {
    server: PathBuf,
}

impl Programs {
    /// A program that is not too old; distributions have older ones.
    pub(crate) fn find() -> Option<Self> {
        Self::of(find::program(&[PROGRAM])?)
    }

    /// A program, if its version is not too old.
    pub(crate) fn of(server: PathBuf) -> Option<Self> {
        let output = Command::new(&server).arg("--version").output().ok()?;
        let version = version(&String::from_utf8_lossy(&output.stdout))?;
        (version >= OLDEST).then_some(Self { server })
    }

    /// The path of the program.
    pub(crate) fn place(&self) -> &Path {
        &self.server
    }
}

/// The numbers after `v` in `nats-server: v2.15.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().find_map(|word| word.strip_prefix('v'))?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// On the loopback interface, without a password. Streams survive a restart, not the end of this server.
pub(crate) fn start(programs: &Programs, arguments: &[String]) -> anyhow::Result<Server> {
    let keeper = Keeper::new("nats", Account::unprivileged(&["nats"])?, "TERM")?;
    let (options, settings): (Vec<_>, Vec<_>) = arguments.iter().cloned().partition(|word| word.starts_with('-'));
    for setting in &settings {
        anyhow::ensure!(setting.contains('='), "NATS has no setting {setting:?}; use NAME=VALUE, or an option");
    }
    let command = |keeper: &mut Keeper, port| {
        keeper.write("nats.conf", &file(port, &settings))?;
        Ok(["-c", "nats.conf"].map(str::to_owned).into_iter().chain(options.iter().cloned()).collect())
    };
    let process = Process::start(keeper, &programs.server, command, is_ready)?;
    let dsn = format!("nats://127.0.0.1:{}", process.port());
    Ok(Server::new(process, dsn, None))
}

/// Settings of JetStream; all others are of the server.
const OF_JETSTREAM: [&str; 4] = ["sync_interval", "max_file_store", "max_memory_store", "max_outstanding_catchup"];

/// The configuration file.
fn file(port: u16, settings: &[String]) -> String {
    let (mut jetstream, mut server) = (String::new(), String::new());
    for (name, value) in settings.iter().filter_map(|setting| setting.split_once('=')) {
        let part = if OF_JETSTREAM.contains(&name) { &mut jetstream } else { &mut server };
        part.push_str(&format!("{name}: {value}\n"));
    }
    format!("listen: \"127.0.0.1:{port}\"\n{server}jetstream {{\nstore_dir: data\n{jetstream}}}\n")
}

/// The first line of a server says whether it has JetStream.
fn is_ready(_: &Path, port: u16) -> bool {
    let greeting = || {
        let stream = TcpStream::connect_timeout(&port::local(port), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        std::io::Result::Ok(line)
    };
    greeting().is_ok_and(|line| line.starts_with("INFO ") && line.contains("\"jetstream\":true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(version("nats-server: v2.9.10"), Some((2, 9)));
        assert!((2, 9) < OLDEST && (2, 11) >= OLDEST);
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn settings_are_in_their_part_of_the_file() {
        let settings = ["max_payload=64KB", "sync_interval=always"].map(str::to_owned);
        let expected =
            "listen: \"127.0.0.1:7\"\nmax_payload: 64KB\njetstream {\nstore_dir: data\nsync_interval: always\n}\n";
        assert_eq!(file(7, &settings), expected);
    }
}
