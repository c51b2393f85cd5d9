//! Database servers for tests: the shared one of the run, or a private one that a test may stop, restart and
//! configure. Also what tests of several crates need besides: proxies that disturb the network, child processes, their kills and stops, random
//! numbers, scrapes, warnings.
//!
//! `cargo xtask test` starts the servers and passes these environment variables to the tests:
//!
//! | variable | meaning |
//! |---|---|
//! | `POSTGRES_DSN`, `MYSQL_DSN`, `REDIS_DSN`, `NATS_URL` | the shared server of the run, with the right to create databases, users and streams |
//! | `BATCHSQL_XTASK` | the `xtask` program, whose verb `server` starts further servers |
//!
//! You may also set the DSNs and run `cargo test`; a test never uses any other server. Every test uses its own
//! schema, database or key prefix, see [`unique`].

mod altering_proxy;
mod counting_proxy;
mod frozen;
mod kills;
mod late_proxy;
mod line;
mod listen;
mod network_conditions;
mod network_link;
mod network_proxy;
pub mod process;
mod promtool;
mod random;
mod scrape;
mod warnings;

pub use altering_proxy::AlteringProxy;
pub use counting_proxy::CountingProxy;
pub use frozen::Frozen;
pub use kills::Kills;
pub use late_proxy::LateProxy;
pub use network_conditions::Conditions;
pub use network_proxy::NetworkProxy;
pub use promtool::promtool_objects_to_the_three_known_names_only;
pub use random::Random;
pub use scrape::{Sample, samples, sum};
pub use warnings::{Warnings, subscribe};

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL.
    Postgres,
    /// PgBouncer in transaction mode, before its own PostgreSQL.
    PgBouncer,
    /// MySQL or MariaDB.
    MySql,
    /// Redis.
    Redis,
    /// Redis in cluster mode: three nodes without replicas.
    RedisCluster,
    /// Prometheus with the configuration and the rules of this repository. Its arguments are `target=HOST:PORT` for
    /// the suite and `app=HOST:PORT` for an application, each as often as there are targets, and `interval=1s` in
    /// place of every interval of the files; its "DSN" is `http://127.0.0.1:PORT`.
    Prometheus,
    /// NATS with JetStream. Its arguments are settings of its file, as `max_payload=64KB`; its "DSN" is
    /// `nats://127.0.0.1:PORT`.
    Nats,
}

impl Kind {
    /// The name as the `server` verb spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::PgBouncer => "pgbouncer",
            Self::MySql => "mysql",
            Self::Redis => "redis",
            Self::RedisCluster => "redis-cluster",
            Self::Prometheus => "prometheus",
            Self::Nats => "nats",
        }
    }

    fn variable(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("POSTGRES_DSN"),
            Self::MySql => Some("MYSQL_DSN"),
            Self::Redis => Some("REDIS_DSN"),
            Self::Nats => Some("NATS_URL"),
            Self::PgBouncer | Self::RedisCluster | Self::Prometheus => None,
        }
    }
}

/// The DSN of the shared server of this run.
///
/// # Panics
/// If there is none: a test that does not run must not pass.
pub fn dsn(kind: Kind) -> String {
    let variable = kind.variable().expect("there is no shared server of this kind");
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("this test needs a server: run `cargo xtask test`, which starts one, or set {variable}")
    })
}

/// A name that is unique across tests and runs: lower case letters, digits and `_`, at most 40 long.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("{}_{pid:x}_{:x}_{number}", &prefix[..prefix.len().min(12)], nanos & 0xffff_ffff)
}

/// A server for a single test. It is stopped and its files are removed when this is dropped, or when the test
/// process dies.
#[derive(Debug)]
pub struct Server {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    dsn: String,
    behind: Option<String>,
    ca: Option<PathBuf>,
}

impl Server {
    /// Starts a server with arguments for the server program, for example `["-c", "max_connections=5"]` or
    /// `["--max-connections=5"]`. Waits until it accepts connections.
    ///
    /// # Panics
    /// If it cannot be started: a test that does not run must not pass.
    pub fn start(kind: Kind, arguments: &[&str]) -> Self {
        Self::start_in(kind, arguments, None)
    }

    /// The same with its files in a folder, which every user can reach and write into; default: that of temporary files.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_in(kind: Kind, arguments: &[&str], folder: Option<&Path>) -> Self {
        let xtask = std::env::var_os("BATCHSQL_XTASK").unwrap_or_else(|| {
            panic!("this test starts a server of its own: run `cargo xtask test`, which tells the test how")
        });
        let mut command = Command::new(xtask);
        if let Some(folder) = folder {
            command.env("TMPDIR", folder);
        }
        let mut process = command
            .args(["server", kind.name(), "--"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("BATCHSQL_XTASK is the xtask program");
        let commands = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("it was piped"));
        let mut server = Self { process, commands, answers, dsn: String::new(), behind: None, ca: None };
        server.wait_for("READY");
        server
    }

    /// The DSN of a user with every right.
    pub fn dsn(&self) -> &str {
        &self.dsn
    }

    /// The DSN of the server behind a pooler.
    ///
    /// # Panics
    /// If there is none.
    pub fn behind(&self) -> &str {
        self.behind.as_deref().expect("this server is a pooler")
    }

    /// The certificate authority of the server's certificate, for `localhost` and `127.0.0.1`; SQL servers
    /// accept connections with and without TLS. Redis listens without TLS only.
    ///
    /// # Panics
    /// If the server has none.
    pub fn ca(&self) -> &Path {
        self.ca.as_deref().expect("this server has a certificate")
    }

    /// Stops the server as an administrator would; its data stays.
    pub fn stop(&mut self) {
        self.send("stop");
        self.wait_for("STOPPED");
    }

    /// Kills the server (`SIGKILL`); its data stays.
    pub fn kill(&mut self) {
        self.send("kill");
        self.wait_for("STOPPED");
    }

    /// Stops the server behind a pooler as an administrator would; its data stays.
    pub fn stop_behind(&mut self) {
        self.send("stop behind");
        self.wait_for("STOPPED");
    }

    /// Starts the server behind a pooler again, on the same port, and waits until it accepts connections.
    pub fn start_behind_again(&mut self) {
        self.send("start behind");
        self.wait_for("BEHIND");
    }

    /// Stops the processes of the server where they are (`SIGSTOP`): its connections stay open, and nothing answers.
    pub fn pause(&mut self) {
        self.send("pause");
        self.wait_for("PAUSED");
    }

    /// Lets a paused server go on (`SIGCONT`).
    pub fn resume(&mut self) {
        self.send("resume");
        self.wait_for("RESUMED");
    }

    /// Starts a server that was stopped or has ended again, on the same port, and waits until it accepts connections.
    pub fn start_again(&mut self) {
        self.send("start");
        self.wait_for("READY");
    }

    /// Starts a stopped server again, and does not wait: it may refuse connections, or be loading.
    pub fn launch(&mut self) {
        self.send("launch");
        self.wait_for("LAUNCHED");
    }

    fn send(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("open until it is dropped");
        writeln!(commands, "{command}").and_then(|()| commands.flush()).expect("the server's keeper is alive");
    }

    fn wait_for(&mut self, answer: &str) {
        loop {
            let mut line = String::new();
            let read = self.answers.read_line(&mut line).expect("the server's keeper is alive");
            assert!(read > 0, "the server's keeper ended before it said {answer}; see above for its reason");
            let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            match word {
                "CA" => self.ca = Some(rest.into()),
                "READY" => rest.clone_into(&mut self.dsn),
                "BEHIND" => self.behind = Some(rest.to_owned()),
                _ => {}
            }
            if word == answer {
                return;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input makes it stop the server and clean up.
        drop(self.commands.take());
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_fit_every_database() {
        let (a, b) = (unique("a_rather_long_prefix"), unique("a_rather_long_prefix"));
        assert_ne!(a, b);
        assert!(a.len() <= 40 && a.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{a}");
    }
}
