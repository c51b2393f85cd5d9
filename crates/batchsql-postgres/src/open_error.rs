//! Owns the error of options and of connecting; it names the server, never the password.
//! Must not know how to connect to a server, or the DSN syntax.

use batchsql_core::OpenError;
use sqlx::postgres::PgConnectOptions;

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
