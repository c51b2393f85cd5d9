//! Servers of `docker/docker-compose.integration.yml`, each as a project of its own.
//! Must not know how the keeper of a project works.

use std::{
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::{Value, json};

use super::{
    account::Account,
    certificates::{self, Certificate},
    keeper::Keeper,
    kind::Kind,
    port::{self, Port},
    process::Process,
    random,
    server::{Purpose, Server},
};
use crate::{cargo, interrupt};

/// The file with the services, relative to the root of the repository.
pub(crate) const FILE: &str = "docker/docker-compose.integration.yml";

/// Timeout for a response of the engine, which may be unreachable or hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// Timeout if an image may have to be downloaded.
pub(crate) const DOWNLOAD: Duration = Duration::from_secs(30 * 60);

/// Whether an engine responds and the program has `compose`; an error is a part of a sentence.
pub(crate) fn engine() -> Result<(), String> {
    ask(&mut docker(&["compose", "version"]), PATIENCE)?.ok_or("Docker has no `docker compose`")?;
    ask(&mut docker(&["version"]), PATIENCE)?.ok_or("no Docker engine answers")?;
    Ok(())
}

/// The program, without output to the terminal.
pub(crate) fn docker(arguments: &[&str]) -> Command {
    let mut docker = Command::new("docker");
    docker.args(arguments).stderr(Stdio::null());
    docker
}

/// Its output; `None` if it fails.
///
/// # Errors
/// It is missing, does not respond within the limit, or is interrupted; the error is a part of a sentence.
pub(crate) fn ask(docker: &mut Command, limit: Duration) -> Result<Option<String>, String> {
    ask_unless(docker, limit, interrupt::caught)
}

/// The same, also after an interrupt.
pub(crate) fn ask_in_any_case(docker: &mut Command, limit: Duration) -> Result<Option<String>, String> {
    ask_unless(docker, limit, || false)
}

fn ask_unless(docker: &mut Command, limit: Duration, given_up: fn() -> bool) -> Result<Option<String>, String> {
    docker.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = docker.spawn().map_err(|_| "Docker is not installed".to_owned())?;
    let (mut stdout, (send, printed)) = (child.stdout.take().expect("it was piped"), mpsc::channel());
    // Not joined: a program that outlives this one may hold the pipe open.
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.read_to_end(&mut bytes);
        let _ = send.send(String::from_utf8_lossy(&bytes).trim().to_owned());
    });
    let start = Instant::now();
    while start.elapsed() < limit && !given_up() {
        match child.try_wait() {
            Ok(Some(status)) => {
                let text = printed.recv_timeout(limit.saturating_sub(start.elapsed())).unwrap_or_default();
                return Ok(status.success().then_some(text));
            }
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(_) => break,
        }
    }
    end(&mut child);
    Err(if given_up() { "interrupted".to_owned() } else { format!("Docker did not respond for {} s", limit.as_secs()) })
}

/// With SIGTERM first, so that the program can end its children.
fn end(child: &mut Child) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What happens to the data of services when their containers are removed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Data {
    Drop,
    Keep,
}

/// The keeper of services, separated by spaces; the command that selects their project must follow.
pub(crate) fn keeper(folder: &Path, services: &str, data: Data) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", include_str!("docker-keeper.sh"), "batchsql-keeper"]).arg(folder).arg(services);
    shell.arg(match data {
        Data::Drop => "drop",
        Data::Keep => "keep",
    });
    shell
}

/// A service of the compose file, with the settings of its kind.
struct Service {
    /// Name in the compose file. SQL servers run as a user of the same name.
    name: &'static str,
    command: &'static [&'static str],
    /// Further arguments for tests: no waits for the disk.
    relaxed: &'static [&'static str],
    /// Further arguments for TLS.
    tls: Option<&'static [&'static str]>,
    dsn: fn(&str, u16) -> String,
}

const POSTGRES: Service = Service {
    name: "postgres",
    command: &["postgres", "-c", "max_connections=200"],
    relaxed: &["-c", "fsync=off"],
    tls: Some(&[
        "-c",
        "ssl=on",
        "-c",
        "ssl_cert_file=/run/batchsql-tls/server.pem",
        "-c",
        "ssl_key_file=/run/batchsql-tls/server.key",
    ]),
    dsn: |password, port| format!("postgres://batchsql:{password}@127.0.0.1:{port}/batchsql"),
};

const MYSQL: Service = Service {
    name: "mysql",
    command: &["mysqld", "--max-connections=200", "--character-set-server=utf8mb4"],
    relaxed: &["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0"],
    tls: Some(&[
        "--ssl-ca=/run/batchsql-tls/ca.pem",
        "--ssl-cert=/run/batchsql-tls/server.pem",
        "--ssl-key=/run/batchsql-tls/server.key",
    ]),
    // In this image only root may create users and databases.
    dsn: |password, port| format!("mysql://root:{password}@127.0.0.1:{port}/batchsql"),
};

const REDIS: Service = Service {
    name: "redis",
    // Clients of a container are not local, so `local` would disable DEBUG for the tests.
    command: &["redis-server", "--save", "", "--appendonly", "no", "--enable-debug-command", "yes"],
    relaxed: &[],
    tls: None,
    dsn: |_, port| format!("redis://127.0.0.1:{port}"),
};

/// Writes the certificate to the path in the arguments. It is passed in the environment, because a mounted file would
/// have the wrong owner and on some systems would not be readable.
const WRITE_CERTIFICATE: &str = r#"
(
  umask 077 && mkdir -p /run/batchsql-tls && cd /run/batchsql-tls &&
  echo "$BATCHSQL_CA" >ca.pem && echo "$BATCHSQL_CERTIFICATE" >server.pem && echo "$BATCHSQL_KEY" >server.key &&
  chown -R "$0" .
) && exec docker-entrypoint.sh "$@"
"#;

fn service(kind: Kind) -> Option<&'static Service> {
    match kind {
        Kind::Postgres => Some(&POSTGRES),
        Kind::MySql => Some(&MYSQL),
        Kind::Redis => Some(&REDIS),
        Kind::PgBouncer | Kind::RedisCluster | Kind::Prometheus | Kind::Nats | Kind::Postgres18 | Kind::Valkey => None,
    }
}

/// Whether the compose file has servers of this kind.
pub(crate) fn has(kind: Kind) -> bool {
    service(kind).is_some()
}

/// Starts a server with further arguments for its program. If another program takes its port meanwhile, another port
/// is tried.
pub(crate) fn start(kind: Kind, arguments: &[String], purpose: Purpose) -> anyhow::Result<Server> {
    let service = service(kind).with_context(|| format!("{FILE} has no {}", kind.title()))?;
    let mut tries = 5;
    loop {
        let port = Port::claim()?;
        let number = port.number();
        tries -= 1;
        match Project::new(service, number)?.start(port, arguments, purpose) {
            // Our container has been removed, so another program listens.
            Err(_) if tries > 0 && !interrupt::caught() && !port::is_free(number) => {}
            outcome => return outcome,
        }
    }
}

/// One server, with its own Docker project.
struct Project {
    service: &'static Service,
    name: String,
    password: String,
    port: u16,
}

impl Project {
    fn new(service: &'static Service, port: u16) -> anyhow::Result<Self> {
        let name = format!("batchsql-{}-{:08x}", std::process::id(), random::number()?);
        Ok(Self { service, name, password: random::password()?, port })
    }

    fn start(&self, port: Port, arguments: &[String], purpose: Purpose) -> anyhow::Result<Server> {
        let service = self.service;
        let mut keeper = Keeper::start(service.name, Account::Caller, |folder| {
            let mut shell = keeper(folder, service.name, Data::Drop);
            self.describe(shell.arg("docker"), folder);
            shell
        })?;
        let certificate = if service.tls.is_some() { certificates::make(&mut keeper)? } else { None };
        let changes = service.changes(arguments, purpose, certificate.as_ref())?;
        keeper.write("override.json", &changes.to_string())?;

        // The keeper creates the container, so that it is removed even if this program is killed meanwhile.
        let created = keeper.tell_within("create", DOWNLOAD);
        interrupt::check()?;
        created
            .with_context(|| format!("docker compose could not create the container of {}, see above", service.name))?;
        let mut process = Process::kept(keeper, port);
        process.wait()?;
        let dsn = (service.dsn)(&self.password, self.port);
        Ok(Server::new(process, dsn, certificate))
    }

    /// Adds the arguments that select this project, and the settings that the compose file requires. Docker's own
    /// variables stay, because they locate the engine.
    fn describe(&self, docker: &mut Command, folder: &Path) {
        docker.args(["compose", "-p", &self.name]);
        docker.arg("-f").arg(cargo::workspace_root().join(FILE)).arg("-f").arg(folder.join("override.json"));
        docker.env("BATCHSQL_PASSWORD", &self.password);
        docker.env(format!("BATCHSQL_{}_PORT", self.service.name.to_uppercase()), self.port.to_string());
    }
}

impl Service {
    /// The changes of a run to the compose file: the command, and the certificate.
    fn changes(
        &self,
        arguments: &[String],
        purpose: Purpose,
        certificate: Option<&Certificate>,
    ) -> anyhow::Result<Value> {
        let mut command: Vec<String> = self.command.iter().map(|&word| word.to_owned()).collect();
        if purpose == Purpose::Test {
            command.extend(self.relaxed.iter().map(|&word| word.to_owned()));
        }
        let mut changes = json!({});
        if let Some((certificate, settings)) = certificate.zip(self.tls) {
            let [authority, certificate, key] = certificate.texts()?;
            command.extend(settings.iter().map(|&word| word.to_owned()));
            changes["entrypoint"] = json!(["sh", "-c", escaped(WRITE_CERTIFICATE), self.name]);
            changes["environment"] =
                json!({ "BATCHSQL_CA": authority, "BATCHSQL_CERTIFICATE": certificate, "BATCHSQL_KEY": key });
        }
        // Later arguments override earlier ones.
        command.extend(arguments.iter().map(|argument| escaped(argument)));
        changes["command"] = json!(command);
        Ok(json!({ "services": { self.name: changes } }))
    }
}

/// Escapes `$`, because compose replaces variables in its files.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(service: &Service, purpose: Purpose, arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let changes = service.changes(&arguments, purpose, None).unwrap();
        let command = changes["services"][service.name]["command"].as_array().cloned().unwrap();
        command.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn later_arguments_win_and_keep_their_dollars() {
        let words = command(&POSTGRES, Purpose::Test, &["-c", "max_connections=5", "$x"]);
        assert_eq!(words.first().unwrap(), "postgres");
        assert_eq!(words[words.len() - 3..], ["-c", "max_connections=5", "$$x"]);
    }

    #[test]
    fn measurements_wait_for_the_disk() {
        for (service, relaxed) in [(&POSTGRES, "fsync=off"), (&MYSQL, "--sync-binlog=0")] {
            assert!(command(service, Purpose::Test, &[]).iter().any(|word| word == relaxed));
            assert!(!command(service, Purpose::Measure, &[]).iter().any(|word| word == relaxed));
        }
    }
}
