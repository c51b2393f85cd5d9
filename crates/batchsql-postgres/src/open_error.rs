//! Owns the error of options and of connecting; it names the server, never the password.
//! Must not know how to connect to a server, or the DSN syntax.

use std::fmt;

use sqlx::postgres::PgConnectOptions;

/// The sink could not connect to the server.
#[derive(Debug)]
pub struct OpenError {
    pub(crate) problem: String,
    pub(crate) source: Option<std::io::Error>,
}

impl OpenError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), source: None }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// An error while connecting to this server.
pub(crate) fn problem(connect: &PgConnectOptions, what: &str) -> OpenError {
    OpenError::new(format!("cannot connect to postgresql at {}: {what}", server(connect)))
}

/// Host and port or socket, user and database, for errors.
pub(crate) fn server(connect: &PgConnectOptions) -> String {
    let place = match connect.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if connect.get_host().starts_with('/') => connect.get_host().to_owned(),
        None => format!("{}:{}", connect.get_host(), connect.get_port()),
    };
    let (user, database) = (connect.get_username(), connect.get_database().unwrap_or(connect.get_username()));
    format!("{place} as user {user:?}, database {database:?}")
}
