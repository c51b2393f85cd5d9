//! Owns the DSN: its parameters, and what is wrong with one, without a part of the password.
//! Must not know how a server is connected to.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use crate::options::{OpenError, PostgresOptions};
use crate::settings::{LossyValues, Strategy};

/// Parameters of the URL that `sqlx` understands; it would only warn of others, and show their values.
const SQLX_PARAMETERS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];

const FORM: &str = "use postgres://user:password@host:port/database?sslmode=verify-full";

impl FromStr for PostgresOptions {
    type Err = OpenError;

    fn from_str(dsn: &str) -> Result<Self, OpenError> {
        let Some((scheme, rest)) = dsn.split_once("://") else {
            return Err(OpenError::new(format!("the postgresql dsn has no scheme; {FORM}")));
        };
        if !matches!(scheme, "postgres" | "postgresql") {
            // Only a real scheme is shown: it may be the start of a password.
            let shown = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
            let scheme = if shown { format!(" {scheme:?}") } else { String::new() };
            return Err(OpenError::new(format!("a dsn with scheme{scheme} is not for postgresql; {FORM}")));
        }
        // A raw `/`, `?` or `#` in a password ends the part before the host, and its rest would be taken for
        // something that may be shown.
        if rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@')) || rest.contains('#') {
            let advice = "percent-encode / ? # and @ in user, password and parameters";
            return Err(OpenError::new(format!("the postgresql dsn has a # or a misplaced @; {advice}")));
        }
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A raw `&` in a password makes its rest a parameter of its own.
        let has_password = query.split('&').any(|pair| pair == "password" || pair.starts_with("password="));
        let (mut own, mut foreign) = (Vec::new(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "max_connections" | "connect_timeout" | "strategy" | "prepared_statements" | "lossy_values" => {
                    own.push((name, value));
                }
                _ if SQLX_PARAMETERS.contains(&name) || name == "options" || name.starts_with("options[") => {
                    foreign.push(pair);
                }
                "connect_timeout_ms" => {
                    let advice = "use connect_timeout, in seconds (0.5 is 500 ms)";
                    return Err(OpenError::new(format!(
                        "unknown parameter \"connect_timeout_ms\" in the postgresql dsn; {advice}"
                    )));
                }
                _ => {
                    let shown = match pair.contains('=') && !has_password {
                        true => format!(" {name:?}"),
                        false => String::new(),
                    };
                    return Err(OpenError::new(format!(
                        "unknown parameter{shown} in the postgresql dsn; use those of libpq, or max_connections, \
                         connect_timeout, strategy, lossy_values or prepared_statements"
                    )));
                }
            }
        }
        let connect: PgConnectOptions = format!("{scheme}://{address}?{}", foreign.join("&"))
            .parse()
            .map_err(|error| OpenError::new(unparsable(&error)))?;
        check_files(&foreign)?;
        own.into_iter().try_fold(Self::from_connect_options(connect), |options, (name, value)| options.set(name, value))
    }
}

impl PostgresOptions {
    /// Sets one of the parameters that are ours.
    fn set(self, name: &str, value: &str) -> Result<Self, OpenError> {
        let wrong = |expected: &str| OpenError::new(format!("{name} in the postgresql dsn is not {expected}"));
        Ok(match name {
            "max_connections" => {
                let connections = value.parse().ok().filter(|connections| *connections > 0);
                self.max_connections(connections.ok_or_else(|| wrong("a number of at least 1"))?)
            }
            "connect_timeout" => {
                self.connect_timeout(seconds(value).ok_or_else(|| wrong("a number of seconds above 0"))?)
            }
            "strategy" => {
                let known = Strategy::ALL.into_iter().find(|strategy| strategy.name() == value);
                self.strategy(known.ok_or_else(|| wrong("auto, multi-values, unnest, copy or staging"))?)
            }
            "lossy_values" => self.lossy_values(match value {
                "refuse" => LossyValues::Refuse,
                "convert" => LossyValues::LetDatabaseConvert,
                _ => return Err(wrong("refuse or convert")),
            }),
            _ => self.prepared_statements(value.parse().map_err(|_| wrong("true or false"))?),
        })
    }
}

/// A time in seconds, above 0 and at most 136 years; decimals are allowed.
fn seconds(value: &str) -> Option<Duration> {
    let seconds = value.parse().ok().filter(|seconds: &f64| *seconds <= f64::from(u32::MAX))?;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
}

/// What is wrong with a URL. The error itself may quote a value.
fn unparsable(error: &sqlx::Error) -> String {
    let shown = error.to_string();
    let part = if shown.contains("port") {
        "its port is not a number up to 65535"
    } else if shown.contains("ssl") {
        "its sslmode is not disable, allow, prefer, require, verify-ca or verify-full"
    } else {
        "it is not a URL"
    };
    format!("the postgresql dsn cannot be read: {part}; {FORM}, and percent-encode special characters of the password")
}

/// A certificate file that is not there would only be found while connecting, without its name.
fn check_files(parameters: &[&str]) -> Result<(), OpenError> {
    for pair in parameters {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_file =
            matches!(name, "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey" | "ssl-key");
        // An encoded path is left to the server's library to find.
        if is_file && !value.contains('%') && !Path::new(value).is_file() {
            return Err(OpenError::new(format!(
                "the file of {name} in the postgresql dsn does not exist; name a PEM file"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_say_what_to_do_and_show_no_password() {
        let check = |dsn: &str, part: &str| {
            let message = dsn.parse::<PostgresOptions>().unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
            assert!(!message.contains("secret"), "{message:?}");
        };
        check("mysql://user:secret@host/db", "scheme \"mysql\"");
        check("user:secret@host", "no scheme");
        check("a-secret://host", "is not for postgresql");
        check("postgres://user:sec/ret@host/db", "misplaced @");
        check("postgres://user:1?secret@host/db", "misplaced @");
        check("postgres://user:1#secret@host/db", "misplaced @");
        check("postgres://user:1/secret@host/db", "misplaced @");
        check("postgres://user:secret@host:port/db", "port");
        check("postgres://user:secret@host:99999/db", "port");
        check("postgres://user:secret@host/db?sslmode=secret", "verify-full");
        check("postgres://user:secret@host/db?ssl=secret", "unknown parameter \"ssl\"");
        check("postgres://user@host/db?password=top&secret", "unknown parameter in");
        check("postgres://user@host/db?password=top&secret=more", "unknown parameter in");
        check("postgres://user:top@host/db?secret", "unknown parameter in");
        check("postgres://user:secret@host/db?max_connections=0", "at least 1");
        check("postgres://user:secret@host/db?connect_timeout=-1", "number of seconds");
        check("postgres://user:secret@host/db?connect_timeout=0", "above 0");
        check("postgres://user:secret@host/db?connect_timeout=inf", "above 0");
        check("postgres://user:secret@host/db?connect_timeout_ms=5", "use connect_timeout, in seconds");
        check("postgres://user:secret@host/db?strategy=secret", "multi-values");
        check("postgres://user:secret@host/db?prepared_statements=secret", "true or false");
        check("postgres://user:secret@host/db?sslrootcert=/no/secret.pem", "sslrootcert");
    }
}
