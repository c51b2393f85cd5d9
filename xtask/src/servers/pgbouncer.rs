//! PgBouncer in transaction mode, in front of its own PostgreSQL.
//! Must not know who connects to it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    account::Account,
    certificates, find,
    keeper::Keeper,
    port, postgres,
    process::Process,
    random,
    server::{Purpose, Server},
};

/// The programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pgbouncer: PathBuf,
    postgres: postgres::Programs,
}

impl Programs {
    pub(crate) fn find() -> Option<Self> {
        Some(Self { pgbouncer: find::program(&["pgbouncer"])?, postgres: postgres::Programs::find()? })
    }

    /// The path of the program.
    pub(crate) fn place(&self) -> &Path {
        &self.pgbouncer
    }
}

/// User and database are those of the PostgreSQL server. PgBouncer has no settings on its command line, so each
/// argument is a line of its configuration file: `max_client_conn=10`.
pub(crate) fn start(programs: &Programs, arguments: &[String], purpose: Purpose) -> anyhow::Result<Server> {
    let password = random::password()?;
    let behind = postgres::start(&programs.postgres, &[], purpose, &password)?;
    let mut keeper = Keeper::new("pgbouncer", Account::unprivileged(&["postgres"])?, "TERM")?;
    keeper.write("users", &format!("\"batchsql\" \"{password}\"\n"))?;
    let certificate = certificates::make(&mut keeper)?;
    let mut settings = vec![
        "pool_mode = transaction".to_owned(),
        "listen_addr = 127.0.0.1".to_owned(),
        "unix_socket_dir =".to_owned(),
        "auth_type = scram-sha-256".to_owned(),
        "auth_file = users".to_owned(),
        "admin_users = batchsql".to_owned(),
        // A startup parameter of drivers that PgBouncer cannot pass on.
        "ignore_startup_parameters = extra_float_digits".to_owned(),
        "max_client_conn = 200".to_owned(),
    ];
    if let Some(certificate) = &certificate {
        settings.push("client_tls_sslmode = allow".to_owned());
        settings.push(format!("client_tls_cert_file = {}", certificate.certificate.display()));
        settings.push(format!("client_tls_key_file = {}", certificate.key.display()));
    }
    settings.extend_from_slice(arguments);
    let settings = settings.join("\n");
    let databases = format!("[databases]\n* = host=127.0.0.1 port={}\n", behind.port());
    let configure = |keeper: &mut Keeper, port| {
        keeper.write("pgbouncer.ini", &format!("{databases}[pgbouncer]\nlisten_port = {port}\n{settings}\n"))?;
        Ok(vec!["pgbouncer.ini".to_owned()])
    };
    let process = Process::start(keeper, &programs.pgbouncer, configure, is_ready)?;
    let dsn = postgres::dsn(&password, process.port());
    Ok(Server::new(process, dsn, certificate).before(behind))
}

/// It responds to the request for TLS before authentication.
fn is_ready(_: &Path, port: u16) -> bool {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&port::local(port), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(&SSL_REQUEST)?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        std::io::Result::Ok(answer[0])
    };
    matches!(ask(), Ok(b'S' | b'N'))
}
