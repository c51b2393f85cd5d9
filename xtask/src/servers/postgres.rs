//! PostgreSQL from the programs of this machine.
//! Must not know who connects to it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    account::Account,
    certificates, find,
    keeper::Keeper,
    process::Process,
    server::{Purpose, Server},
};

/// The programs of one version.
#[derive(Debug)]
pub(crate) struct Programs {
    postgres: PathBuf,
    initdb: PathBuf,
    /// Whether it was built with TLS.
    has_tls: bool,
}

impl Programs {
    pub(crate) fn find() -> Option<Self> {
        find::postgres(&["postgres", "initdb"]).map(|folder| Self::of(&folder, true))
    }

    /// The programs of a wheel, which are built without TLS.
    pub(crate) fn of_wheel(folder: &Path) -> Self {
        Self::of(folder, false)
    }

    fn of(folder: &Path, has_tls: bool) -> Self {
        Self { postgres: folder.join("postgres"), initdb: folder.join("initdb"), has_tls }
    }

    /// The path of the server.
    pub(crate) fn place(&self) -> &Path {
        &self.postgres
    }
}

/// A superuser `batchsql`, the database `batchsql`, TLS if openssl is available and the server supports it.
pub(crate) fn start(
    programs: &Programs,
    arguments: &[String],
    purpose: Purpose,
    password: &str,
) -> anyhow::Result<Server> {
    let Programs { postgres, initdb, has_tls } = programs;
    // SIGINT is the fast shutdown, which does not wait for clients.
    let mut keeper = Keeper::new("postgres", Account::unprivileged(&["postgres"])?, "INT")?;
    keeper.write("password", password)?;
    let common = ["-D", "data", "-U", "batchsql", "--pwfile=password", "-A", "scram-sha-256", "-E", "UTF8", "-N"];
    let with_locale = |locale| [&common[..], &[locale]].concat();
    // Not every system has C.UTF-8; C sorts in the same way, but knows only ASCII letters.
    if keeper.run(initdb, &with_locale("--locale=C.UTF-8"), "").is_err() {
        keeper.run(initdb, &with_locale("--locale=C"), "")?;
    }
    let create = ["--single", "-D", "data", "-c", "fsync=off", "postgres"];
    keeper.run(postgres, &create, "CREATE DATABASE batchsql\n")?;

    let certificate = if *has_tls { certificates::make(&mut keeper)? } else { None };
    let sockets = keeper.folder().display().to_string();
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("unix_socket_directories={sockets}"),
        "max_connections=200".to_owned(),
    ];
    if let Some(certificate) = &certificate {
        settings.push("ssl=on".to_owned());
        settings.push(format!("ssl_cert_file={}", certificate.certificate.display()));
        settings.push(format!("ssl_key_file={}", certificate.key.display()));
    }
    if purpose == Purpose::Test {
        settings.push("fsync=off".to_owned());
    }
    let command = |port: u16| {
        let settings = settings.iter().flat_map(|setting| ["-c".to_owned(), setting.clone()]);
        let fixed = ["-D".to_owned(), "data".to_owned(), "-p".to_owned(), port.to_string()];
        fixed.into_iter().chain(settings).chain(arguments.iter().cloned()).collect()
    };
    let process = Process::start(keeper, postgres, |_, port| Ok(command(port)), is_ready)?;
    let dsn = dsn(password, process.port());
    Ok(Server::new(process, dsn, certificate))
}

/// The DSN of the user and database that [`start`] creates.
pub(crate) fn dsn(password: &str, port: u16) -> String {
    format!("postgres://batchsql:{password}@127.0.0.1:{port}/batchsql")
}

/// The server writes its state into a file: `pg_ctl` waits for it in the same way.
fn is_ready(folder: &Path, _: u16) -> bool {
    let state = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
    // The file of a killed server stays until the next start.
    let current = fs::read_to_string(folder.join("pid")).unwrap_or_default();
    says_ready(&state, current.trim())
}

/// Line 1 is the process id, line 8 the state.
fn says_ready(state: &str, process: &str) -> bool {
    let mut lines = state.lines().map(str::trim);
    lines.next() == Some(process) && matches!(lines.nth(6), Some("ready" | "standby"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_that_of_the_current_process() {
        let state = "42\n/data\n1700000000\n5432\n/sockets\n127.0.0.1\n  1 2\nready   \n";
        assert!(says_ready(state, "42"));
        assert!(!says_ready(state, "43"));
        assert!(!says_ready(&state.replace("ready", "starting"), "42"));
        assert!(!says_ready("42\n/data\n", "42"));
        assert!(!says_ready("", ""));
    }
}
