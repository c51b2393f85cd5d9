//! Owns the address of a server in its DSN: reads it, and replaces it by the address of a proxy.
//! Must not know proxies or connections.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use url::Url;

use crate::database::DatabaseName;

/// A server over TCP. It has no `Debug`, which would show the password.
pub(super) struct Target {
    url: Url,
    host: String,
    port: u16,
}

impl Target {
    /// The server of a DSN.
    ///
    /// # Errors
    /// The server is not reached over TCP, or its certificate would be compared with the name of the proxy; the
    /// message shows no password.
    pub(super) fn new(name: DatabaseName, dsn: &str) -> Result<Self> {
        let (variable, port) = match name {
            DatabaseName::Postgres => ("POSTGRES_DSN", 5432),
            DatabaseName::Mysql => ("MYSQL_DSN", 3306),
            DatabaseName::Sqlite | DatabaseName::Redis => {
                bail!("there is no measurement at a distance for {}; use --db postgres,mysql", name.name())
            }
        };
        let scheme = if name == DatabaseName::Postgres { "postgres" } else { "mysql" };
        let over_tcp = || {
            format!(
                "{variable} does not name a host: a measurement at a distance goes over TCP through a proxy, not over \
                 a socket; write it like {scheme}://user:password@127.0.0.1:{port}/database"
            )
        };
        let url = Url::parse(dsn).with_context(over_tcp)?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let is_socket = url.query_pairs().any(|(key, _)| matches!(&*key, "socket" | "host" | "hostaddr" | "port"));
        let is_path = host.starts_with('/') || host.to_ascii_lowercase().starts_with("%2f");
        ensure!(!is_socket && !is_path && !host.is_empty(), over_tcp());
        let checks_name = url.query_pairs().any(|(key, value)| {
            let (key, value) = (key.replace('-', ""), value.to_ascii_lowercase().replace('_', "-"));
            key == "sslmode" && matches!(value.as_str(), "verify-full" | "verify-identity")
        });
        ensure!(
            !checks_name,
            "{variable} compares the server's certificate with its name, but the connection goes to a proxy on \
             127.0.0.1; for this measurement set {}",
            if name == DatabaseName::Postgres {
                "sslmode=verify-ca or sslmode=require"
            } else {
                "ssl-mode=VERIFY_CA or ssl-mode=REQUIRED"
            }
        );
        let port = url.port().unwrap_or(port);
        Ok(Self { url, host, port })
    }

    /// Host and port of the server.
    pub(super) fn server(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The DSN with another address.
    pub(super) fn at(&self, address: SocketAddr) -> Result<String> {
        let mut url = self.url.clone();
        url.set_host(Some(&address.ip().to_string())).context("cannot put the proxy's address into the dsn")?;
        ensure!(url.set_port(Some(address.port())).is_ok(), "cannot put the proxy's port into the dsn");
        Ok(url.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_changes() {
        let check = |name, dsn: &str, server: (&str, u16), through: &str| {
            let target = Target::new(name, dsn).unwrap();
            assert_eq!(target.server(), server, "{dsn}");
            assert_eq!(target.at(SocketAddr::from(([127, 0, 0, 1], 9))).unwrap(), through, "{dsn}");
        };
        let (postgres, mysql) = (DatabaseName::Postgres, DatabaseName::Mysql);
        check(
            postgres,
            "postgres://me:p%40ss@db.example.org:6000/app?sslmode=require",
            ("db.example.org", 6000),
            "postgres://me:p%40ss@127.0.0.1:9/app?sslmode=require",
        );
        check(postgres, "postgresql://me@[::1]/app", ("::1", 5432), "postgresql://me@127.0.0.1:9/app");
        check(mysql, "mysql://root@localhost/app", ("localhost", 3306), "mysql://root@127.0.0.1:9/app");
    }

    #[test]
    fn what_cannot_go_through_a_proxy_is_refused_with_advice() {
        let check = |name, dsn: &str, part: &str| {
            let error = Target::new(name, dsn).err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(error.contains(part) && !error.contains("secret"), "{dsn}: {error:?}");
        };
        let (postgres, mysql) = (DatabaseName::Postgres, DatabaseName::Mysql);
        check(postgres, "postgres://me:secret@/app?host=/run/postgresql", "over TCP");
        check(postgres, "postgres://me:secret@%2Frun%2Fpostgresql/app", "over TCP");
        check(postgres, "postgres:///app", "postgres://user:password@127.0.0.1:5432/database");
        check(mysql, "mysql://me:secret@localhost/app?socket=/run/mysqld.sock", "over TCP");
        check(postgres, "postgres://me:secret@db/app?sslmode=verify-full", "sslmode=verify-ca");
        check(mysql, "mysql://me:secret@db/app?ssl-mode=VERIFY_IDENTITY", "ssl-mode=VERIFY_CA");
        check(postgres, "host=db password=secret", "POSTGRES_DSN does not name a host");
        check(DatabaseName::Sqlite, "sqlite::memory:", "--db postgres,mysql");
    }
}
