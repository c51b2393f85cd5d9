//! Owns the DSN: its parameters, and its errors, which never contain a part of the password.
//! Must not know how to connect to a server.

use std::path::Path;
use std::str::FromStr;

use batchsql_core::OpenError;
use batchsql_core::dsn::{Parameter, check_once, parameters, wrong_scheme};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::hosts::{Address, servers};
use crate::libpq::{Known, known};
use crate::options::PostgresOptions;
use crate::servers::TargetSession;
use crate::settings::{LossyValues, Strategy};

/// Parameters that `sqlx` supports, grouped by spelling. For others `sqlx` would only log a warning, with their
/// values.
const SQLX_PARAMETERS: [&[&str]; 11] = [
    &["sslmode", "ssl-mode"],
    &["sslrootcert", "ssl-root-cert", "ssl-ca"],
    &["sslcert", "ssl-cert"],
    &["sslkey", "ssl-key"],
    &["host", "hostaddr"],
    &["port"],
    &["dbname"],
    &["user"],
    &["password"],
    &["application_name"],
    &["options"],
];

/// Our own parameters.
const OWN: [&str; 8] = [
    "max_connections",
    "connect_timeout",
    "late_write_limit",
    "strategy",
    "prepared_statements",
    "lossy_values",
    "lock_timeout",
    "target_session_attrs",
];

/// The name of the product in the errors of a DSN.
const PRODUCT: &str = "postgresql";

const FORM: &str = "use postgres://user:password@host:port/database?sslmode=verify-full";

impl FromStr for PostgresOptions {
    type Err = OpenError;

    fn from_str(dsn: &str) -> Result<Self, OpenError> {
        let (scheme, rest) = match dsn.split_once("://") {
            Some((scheme @ ("postgres" | "postgresql"), rest)) => (scheme, rest),
            other => return Err(wrong_scheme(PRODUCT, other.map(|(scheme, _)| scheme), FORM)),
        };
        // A raw `/`, `?` or `#` in a password ends the part before the host, and its rest would be treated as
        // text that may be shown.
        if rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@')) || rest.contains('#') {
            let advice = "percent-encode / ? # and @ in user, password and parameters";
            return Err(OpenError::invalid_options(format!("the postgresql dsn has a # or a misplaced @; {advice}")));
        }
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A raw `&` in a password makes its rest a separate parameter.
        let has_password = query.split('&').any(|pair| pair == "password" || pair.starts_with("password="));
        let parameters: Vec<Parameter<'_>> = parameters(PRODUCT, query, !has_password).collect();
        let mut own: Vec<Parameter<'_>> = Vec::new();
        let mut foreign: Vec<(&str, &str)> = Vec::new();
        for parameter in &parameters {
            let (name, value) = (parameter.name(), parameter.encoded());
            if OWN.contains(&name) {
                own.push(*parameter);
            } else if SQLX_PARAMETERS.iter().any(|names| names.contains(&name)) || name.starts_with("options[") {
                foreign.push((name, value));
            } else if name == "statement-cache-capacity" {
                return Err(parameter.refused("the sink sets it; behind a pooler use prepared_statements=false"));
            } else {
                match known(name, value) {
                    Some(Known::Harmless) => {}
                    Some(Known::Refused(advice)) => return Err(parameter.refused(advice)),
                    None => {
                        let of_sqlx = SQLX_PARAMETERS.iter().map(|names| names[0]);
                        return Err(parameter.unknown(&OWN.into_iter().chain(of_sqlx).collect::<Vec<_>>()));
                    }
                }
            }
        }
        let address = Address::of(address)?;
        check_once(&parameters, spellings)?;
        check_address(&foreign, &address)?;
        let default_ports = std::env::var("PGPORT").ok().filter(|ports| !ports.is_empty());
        let servers = servers(&address, &mut foreign, default_ports.as_deref().unwrap_or("5432"))?;
        let has_system_roots = take_system_roots(&mut foreign);
        check_settings(&foreign)?;
        let pairs: Vec<String> = foreign.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut connect: PgConnectOptions = format!("{scheme}://{}?{}", address.first(), pairs.join("&"))
            .parse()
            .map_err(|error| OpenError::invalid_options(unparsable(&error)))?;
        check_files(&foreign)?;
        let has = |names: &[&str]| foreign.iter().any(|(name, _)| names.contains(name));
        let has_roots = has(SQLX_PARAMETERS[1]) || std::env::var_os("PGSSLROOTCERT").is_some();
        connect = match connect.get_ssl_mode() {
            // As in libpq, which verifies if root certificates are given.
            PgSslMode::Require if has_roots => connect.ssl_mode(PgSslMode::VerifyCa),
            PgSslMode::VerifyFull => connect,
            PgSslMode::Allow => {
                let advice = "sslmode=allow in the postgresql dsn is not supported; use prefer, or disable";
                return Err(OpenError::invalid_options(advice));
            }
            _ if has_system_roots && !has(SQLX_PARAMETERS[0]) => connect.ssl_mode(PgSslMode::VerifyFull),
            _ if has_system_roots => {
                let advice = "sslrootcert=system in the postgresql dsn needs sslmode=verify-full, as with libpq";
                return Err(OpenError::invalid_options(advice));
            }
            _ => connect,
        };
        let options = Self::from_connect_options(connect);
        let options = if servers.is_empty() { options } else { options.addressed(servers) };
        own.into_iter().try_fold(options, Self::set)
    }
}

/// The spellings of a parameter that may be given once.
fn spellings(name: &str) -> Option<&'static [&'static str]> {
    // Each of the `options` adds a setting.
    let of_sqlx = SQLX_PARAMETERS.into_iter().find(|names| names.contains(&name) && *names != ["options"]);
    of_sqlx.or_else(|| OWN.chunks(1).find(|own| own[0] == name))
}

/// Rejects a parameter that is also in the address, because only one of the two values would apply.
fn check_address(foreign: &[(&str, &str)], address: &Address<'_>) -> Result<(), OpenError> {
    let (user, password) = address.login.trim_end_matches('@').split_once(':').unwrap_or((address.login, ""));
    let has_port = address.hosts.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    for (name, _) in foreign {
        let is_in_address = match *name {
            "host" | "hostaddr" => !address.hosts.is_empty(),
            "port" => has_port,
            "dbname" => address.database.len() > 1,
            "user" => !user.is_empty(),
            "password" => !password.is_empty(),
            _ => false,
        };
        if is_in_address {
            let text =
                format!("{name} is given twice in the postgresql dsn, in its address and as a parameter; give it once");
            return Err(OpenError::invalid_options(text));
        }
    }
    Ok(())
}

/// Settings that the sink sets itself.
fn check_settings(foreign: &[(&str, &str)]) -> Result<(), OpenError> {
    let is_set = foreign.iter().any(|(name, value)| {
        *name == "options[client_min_messages]" || (*name == "options" && value.contains("client_min_messages"))
    });
    if !is_set {
        return Ok(());
    }
    let advice = "the sink sets it to error, because notices of triggers may show the values of rows";
    Err(OpenError::invalid_options(format!("client_min_messages in the postgresql dsn cannot be used: {advice}")))
}

/// Removes `sslrootcert=system`: these authorities are used without the parameter.
fn take_system_roots(foreign: &mut Vec<(&str, &str)>) -> bool {
    let before = foreign.len();
    foreign.retain(|(name, value)| !(SQLX_PARAMETERS[1].contains(name) && *value == "system"));
    foreign.len() < before
}

impl PostgresOptions {
    /// Sets one of our own parameters.
    fn set(self, parameter: Parameter<'_>) -> Result<Self, OpenError> {
        Ok(match parameter.name() {
            "max_connections" => self.max_connections(parameter.count()?),
            "connect_timeout" => self.connect_timeout(parameter.duration()?),
            "late_write_limit" => self.late_write_limit(parameter.duration_or_zero()?),
            "strategy" => self.strategy(parameter.choice(&Strategy::ALL.map(|strategy| (strategy.name(), strategy)))?),
            "lock_timeout" => {
                let timeout = Some(parameter.duration()?).filter(|timeout| timeout.as_millis() > 0);
                self.lock_timeout(timeout.ok_or_else(|| parameter.wrong("a duration of at least 1ms"))?)
            }
            "target_session_attrs" => self.target_session(parameter.choice(&[
                ("any", TargetSession::Any),
                ("read-write", TargetSession::ReadWrite),
                ("primary", TargetSession::Primary),
            ])?),
            "lossy_values" => self.lossy_values(
                parameter.choice(&[("refuse", LossyValues::Refuse), ("convert", LossyValues::LetDatabaseConvert)])?,
            ),
            _ => self.prepared_statements(parameter.flag()?),
        })
    }
}

/// The message for an invalid DSN. The error itself may quote a value.
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

/// Checks for missing certificate files here: while connecting, the error would not name the file.
fn check_files(parameters: &[(&str, &str)]) -> Result<(), OpenError> {
    for (name, value) in parameters {
        let is_file =
            matches!(*name, "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey" | "ssl-key");
        // An encoded path is checked by the client library.
        if is_file && !value.contains('%') && !Path::new(value).is_file() {
            return Err(OpenError::invalid_options(format!(
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
        check("a-secret://host", "no scheme");
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
        check("postgres://user:secret@host/db?max_connections=0", "a number from 1 on");
        check("postgres://user:secret@host/db?connect_timeout=-1", "a duration above 0");
        check("postgres://user:secret@host/db?connect_timeout=0", "a duration above 0");
        check("postgres://user:secret@host/db?connect_timeout=inf", "a duration above 0");
        check("postgres://user:secret@host/db?connect_timeout_ms=5", "did you mean connect_timeout?");
        check("postgres://user:secret@host/db?strategy=secret", "multi-values");
        check("postgres://user:secret@host/db?prepared_statements=secret", "true or false");
        check("postgres://user:secret@host/db?sslrootcert=/no/secret.pem", "sslrootcert");
    }

    #[test]
    fn no_parameter_is_taken_and_then_not_carried_out() {
        let check = |parameters: &str, part: &str| {
            let message = format!("postgres://u@h/d?{parameters}").parse::<PostgresOptions>().unwrap_err().to_string();
            assert!(message.contains(part), "{parameters}: {message:?} does not contain {part:?}");
        };
        check("channel_binding=require", "sslmode=verify-full with sslrootcert=system");
        // The connection strings of Neon.
        check("sslmode=require&channel_binding=require", "sslmode=verify-full with sslrootcert=system");
        check("client_encoding=latin1", "UTF-8");
        check("keepalives_idle=5", "tcp_keepalives_idle");
        check("load_balance_hosts=random", "in their order");
        check("service=mine", "write host, port and database");
        check("passfile=/p", "PGPASSFILE");
        check("statement-cache-capacity=5", "the sink sets it");
        check("options[client_min_messages]=debug1", "the sink sets it to error");
        check("options=-c%20client_min_messages=debug1", "the sink sets it to error");
        check("sslmode=allow", "use prefer");
        check("sslmode=require&sslrootcert=system", "verify-full");
        check("host=other", "host is given twice");
        check("port=1&port=2", "port is given twice");
        check("dbname=other", "dbname is given twice");
        check("user=other", "user is given twice");
        check("sslmode=require&ssl-mode=disable", "sslmode or ssl-mode is given twice");
        check("strategy=copy&strategy=unnest", "strategy is given twice");
        check("lock_timeout=0.5ms", "at least 1ms");
        check("late_write_limit=soon", "a duration such as 5s");
        check("target_session_attrs=standby", "any, read-write or primary");
        check("nonsense=1", "unknown parameter \"nonsense\"");
        for harmless in ["channel_binding=prefer", "client_encoding=UTF8", "gssencmode=disable", "keepalives=0"] {
            assert!(format!("postgres://u@h/d?{harmless}").parse::<PostgresOptions>().is_ok(), "{harmless}");
        }
        assert!("postgres://u@h/d?sslmode=verify-full&sslrootcert=system".parse::<PostgresOptions>().is_ok());
    }

    #[test]
    fn several_hosts_are_tried_in_their_order() {
        let check = |dsn: &str, expected: &[(&str, u16)]| {
            let options: PostgresOptions = dsn.parse().unwrap();
            let addresses = options.addresses();
            let found: Vec<(&str, u16)> = addresses.iter().map(|(host, port)| (&**host, *port)).collect();
            assert_eq!(found, expected, "{dsn}");
        };
        check("postgres://u:p@a,b:1,[::1]:2/d", &[("a", 5432), ("b", 1), ("::1", 2)]);
        check("postgres:///d?user=u&host=a,b&port=1,2", &[("a", 1), ("b", 2)]);
        check("postgres:///d?user=u&host=a,b&port=7", &[("a", 7), ("b", 7)]);
        check("postgres://u@a/d", &[]);
        check("postgres:///d?user=u&host=%2Frun%2fpg,b&port=1", &[("/run/pg", 1), ("b", 1)]);
        for wrong in ["postgres://u@a,/d", "postgres://u@a:x,b/d", "postgres:///d?user=u&host=a,b,c&port=1,2"] {
            assert!(wrong.parse::<PostgresOptions>().is_err(), "{wrong}");
        }
    }
}
