//! Servers of `docker/docker-compose.integration.yml`, each as a project of its own.
//! Must not know how the keeper of a project works.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
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
    port,
    process::Process,
    random,
    server::{Purpose, Server},
};
use crate::{cargo, interrupt};

/// The file with the services, from the root of the repository.
pub(crate) const FILE: &str = "docker/docker-compose.integration.yml";

/// An engine may be configured that nobody can reach.
const PATIENCE: Duration = Duration::from_secs(15);
/// Where a container keeps its certificate. It gets it by the environment: a mounted file would have the wrong owner,
/// and on some systems no right to be read.
const TLS: &str = "/run/batchsql-tls";

/// Whether an engine answers and the program has `compose`; otherwise why not, as a part of a sentence.
pub(crate) fn engine() -> Result<(), String> {
    if !succeeds(&["compose", "version"])? {
        return Err("Docker has no `docker compose`".to_owned());
    }
    if !succeeds(&["version"])? {
        return Err("no Docker engine answers".to_owned());
    }
    Ok(())
}

fn succeeds(arguments: &[&str]) -> Result<bool, String> {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|_| "Docker is not installed".to_owned())?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Ok(false)
}

/// Starts a service with further arguments for its server program.
pub(crate) fn start(kind: Kind, arguments: &[String], purpose: Purpose) -> anyhow::Result<Server> {
    let service = kind.service().with_context(|| format!("the compose file has no {}", kind.title()))?;
    let project = format!("batchsql-{}-{:08x}", std::process::id(), random::number()?);
    let password = random::password()?;
    let file = cargo::workspace_root().join(FILE);
    let mut tries = 5;
    loop {
        let port = port::free()?;
        let compose = |folder: &Path| -> Vec<PathBuf> {
            let fixed = ["docker", "compose", "-p", &project, "-f"].map(PathBuf::from);
            fixed.into_iter().chain([file.clone(), "-f".into(), folder.join("override.json")]).collect()
        };
        // Docker's own variables stay: they say where the engine is.
        let with_settings = |command: &mut Command| {
            command
                .env("BATCHSQL_PASSWORD", &password)
                .env(format!("BATCHSQL_{}_PORT", service.to_uppercase()), port.to_string());
        };
        let mut keeper = Keeper::start(service, Account::Caller, |folder| {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", include_str!("docker-keeper.sh"), "batchsql-keeper"]).arg(folder).arg(service);
            shell.args(compose(folder));
            with_settings(&mut shell);
            shell
        })?;
        let certificate = if kind == Kind::Redis { None } else { certificates::make(&mut keeper)? };
        let tls = certificate.as_ref().map(Certificate::texts).transpose()?;
        let settings = override_of(kind, service, arguments, purpose, tls);
        keeper.write("override.json", &settings.to_string())?;

        // Shows what is downloaded, and can be interrupted.
        let words = compose(keeper.folder());
        let mut create = Command::new(&words[0]);
        create.args(&words[1..]).args(["create", service]);
        with_settings(&mut create);
        let created =
            interrupt::status(create.stdin(Stdio::null()).stdout(Stdio::null())).context("cannot start docker")?;
        interrupt::check()?;
        anyhow::ensure!(created.success(), "docker compose could not make the container of {service}, see above");

        let mut process = Process::kept(keeper);
        match process.wait() {
            Ok(()) => {
                return Ok(Server {
                    processes: vec![process],
                    _behind: None,
                    port,
                    dsn: dsn(kind, &password, port),
                    authority: certificate.map(|certificate| certificate.authority),
                });
            }
            Err(error) => {
                tries -= 1;
                // Docker listens on the port while the container runs; somebody else may do so afterwards.
                drop(process);
                if tries == 0 || port::is_free(port) {
                    return Err(error);
                }
            }
        }
    }
}

fn dsn(kind: Kind, password: &str, port: u16) -> String {
    match kind {
        Kind::MySql => format!("mysql://root:{password}@127.0.0.1:{port}/batchsql"),
        Kind::Redis | Kind::RedisCluster => format!("redis://127.0.0.1:{port}"),
        Kind::Postgres | Kind::PgBouncer => format!("postgres://batchsql:{password}@127.0.0.1:{port}/batchsql"),
    }
}

/// What this run changes in a service: the arguments of its program, and its certificate.
fn override_of(
    kind: Kind,
    service: &str,
    arguments: &[String],
    purpose: Purpose,
    certificate: Option<[String; 3]>,
) -> Value {
    let test = purpose == Purpose::Test;
    let (user, mut command): (_, Vec<&str>) = match kind {
        Kind::MySql => ("mysql", vec!["mysqld", "--max-connections=200", "--character-set-server=utf8mb4"]),
        Kind::Redis | Kind::RedisCluster => ("redis", vec!["redis-server", "--save", "", "--appendonly", "no"]),
        Kind::Postgres | Kind::PgBouncer => ("postgres", vec!["postgres", "-c", "max_connections=200"]),
    };
    match kind {
        Kind::MySql if test => command.extend(["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0"]),
        Kind::Postgres if test => command.extend(["-c", "fsync=off"]),
        // Who connects to a container comes from elsewhere.
        Kind::Redis => command.extend(["--enable-debug-command", "yes"]),
        _ => {}
    }
    let mut command: Vec<String> = command.into_iter().map(str::to_owned).collect();
    let mut changes = json!({});
    if let Some([authority, certificate, key]) = certificate {
        let [ca, cert, private] = ["ca.pem", "server.pem", "server.key"].map(|file| format!("{TLS}/{file}"));
        if kind == Kind::MySql {
            command.extend([format!("--ssl-ca={ca}"), format!("--ssl-cert={cert}"), format!("--ssl-key={private}")]);
        } else {
            let settings = ["ssl=on".to_owned(), format!("ssl_cert_file={cert}"), format!("ssl_key_file={private}")];
            command.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        }
        let write = format!(
            "umask 077 && mkdir -p {TLS} && echo \"$$BATCHSQL_CA\" >{ca} && echo \"$$BATCHSQL_CERTIFICATE\" >{cert} && \
             echo \"$$BATCHSQL_KEY\" >{private} && chown -R {user} {TLS} && exec docker-entrypoint.sh \"$$@\""
        );
        changes["entrypoint"] = json!(["sh", "-c", write, "sh"]);
        changes["environment"] =
            json!({ "BATCHSQL_CA": authority, "BATCHSQL_CERTIFICATE": certificate, "BATCHSQL_KEY": key });
    }
    // Compose would look for variables in them.
    command.extend(arguments.iter().map(|argument| argument.replace('$', "$$")));
    changes["command"] = json!(command);
    json!({ "services": { service: changes } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(kind: Kind, purpose: Purpose, arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let changes = override_of(kind, "service", &arguments, purpose, None);
        let command = changes["services"]["service"]["command"].as_array().cloned().unwrap();
        command.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn later_arguments_win_and_keep_their_dollars() {
        let words = command(Kind::Postgres, Purpose::Test, &["-c", "max_connections=5", "$x"]);
        assert_eq!(words.first().unwrap(), "postgres");
        assert_eq!(words[words.len() - 3..], ["-c", "max_connections=5", "$$x"]);
    }

    #[test]
    fn measurements_wait_for_the_disk() {
        for (kind, relaxed) in [(Kind::Postgres, "fsync=off"), (Kind::MySql, "--sync-binlog=0")] {
            assert!(command(kind, Purpose::Test, &[]).iter().any(|word| word == relaxed));
            assert!(!command(kind, Purpose::Measure, &[]).iter().any(|word| word == relaxed));
        }
    }
}
