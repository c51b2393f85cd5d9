//! MySQL or MariaDB from the programs of this machine.
//! Must not know who connects to it.

use std::{
    io::Read,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    account::Account,
    certificates, find,
    keeper::Keeper,
    port,
    process::Process,
    random,
    server::{Purpose, Server},
};

/// The programs.
#[derive(Debug)]
pub(crate) struct Programs {
    server: PathBuf,
    install: Install,
}

/// How the system tables are created.
#[derive(Debug)]
enum Install {
    /// MariaDB: by a program.
    Program(PathBuf),
    /// MySQL: by the server.
    Itself,
}

impl Programs {
    pub(crate) fn find() -> Option<Self> {
        let server = find::program(&["mariadbd", "mysqld"])?;
        let version = Command::new(&server).arg("--version").output().ok()?;
        let install = if String::from_utf8_lossy(&version.stdout).contains("MariaDB") {
            Install::Program(find::beside(&server, &["mariadb-install-db", "mysql_install_db"])?)
        } else {
            Install::Itself
        };
        Some(Self { server, install })
    }

    /// The path of the server.
    pub(crate) fn place(&self) -> &Path {
        &self.server
    }
}

/// A user `batchsql` with all privileges, the database `batchsql`, TLS if openssl is available.
pub(crate) fn start(programs: &Programs, arguments: &[String], purpose: Purpose) -> anyhow::Result<Server> {
    let mut keeper = Keeper::new("mysql", Account::unprivileged(&["mysql"])?, "TERM")?;
    let folder = keeper.folder().display().to_string();
    let data = format!("--datadir={folder}/data");
    match &programs.install {
        Install::Program(install) => {
            let arguments = ["--no-defaults", &data, "--auth-root-authentication-method=socket", "--skip-test-db"];
            keeper.run(install, &arguments, "")?;
        }
        Install::Itself => keeper.run(&programs.server, &["--no-defaults", "--initialize-insecure", &data], "")?,
    }
    let password = random::password()?;
    // Run at every start, before the first connection. MySQL creates root without a password.
    let users = format!(
        "ALTER USER IF EXISTS 'root'@'localhost' IDENTIFIED BY '{password}';\n\
         CREATE USER IF NOT EXISTS 'batchsql'@'%' IDENTIFIED BY '{password}';\n\
         GRANT ALL PRIVILEGES ON *.* TO 'batchsql'@'%' WITH GRANT OPTION;\n\
         CREATE DATABASE IF NOT EXISTS batchsql;\n"
    );
    keeper.write("users.sql", &users)?;

    let certificate = certificates::make(&mut keeper)?;
    let mut settings = vec![
        "--no-defaults".to_owned(),
        data,
        "--bind-address=127.0.0.1".to_owned(),
        format!("--socket={folder}/mysql.sock"),
        format!("--pid-file={folder}/mysql.pid"),
        format!("--tmpdir={folder}"),
        format!("--init-file={folder}/users.sql"),
        "--skip-name-resolve".to_owned(),
        "--character-set-server=utf8mb4".to_owned(),
        "--max-connections=200".to_owned(),
        // The second port, which only MySQL has.
        "--loose-mysqlx=OFF".to_owned(),
    ];
    if let Some(certificate) = &certificate {
        settings.push(format!("--ssl-ca={}", certificate.authority.display()));
        settings.push(format!("--ssl-cert={}", certificate.certificate.display()));
        settings.push(format!("--ssl-key={}", certificate.key.display()));
    }
    if purpose == Purpose::Test {
        // With 0, committed rows would be lost when a test kills the server.
        settings.extend(["--innodb-flush-log-at-trx-commit=2".to_owned(), "--sync-binlog=0".to_owned()]);
    }
    let command = |port: u16| {
        // Later arguments override earlier ones.
        let own = settings.iter().cloned().chain([format!("--port={port}")]);
        own.chain(arguments.iter().cloned()).collect()
    };
    let process = Process::start(keeper, &programs.server, |_, port| Ok(command(port)), is_ready)?;
    let dsn = format!("mysql://batchsql:{password}@127.0.0.1:{}/batchsql", process.port());
    Ok(Server::new(process, dsn, certificate))
}

/// The server sends a greeting as soon as it accepts connections.
fn is_ready(_: &Path, port: u16) -> bool {
    let greeted = || {
        let mut stream = TcpStream::connect_timeout(&port::local(port), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        // The length of the greeting, its number, and the version of the protocol (or 255, an error).
        stream.read_exact(&mut [0; 5])
    };
    greeted().is_ok()
}
