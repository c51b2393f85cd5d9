//! Owns the DSN: which parameters it accepts, and which are rejected because they would have no effect.
//! Must not know connections or pools.

use std::str::FromStr;
use std::sync::Arc;

use batchsql_core::dsn::{Parameter, check_once, parameters, wrong_scheme};
use batchsql_core::{AbandonedWrites, OpenError};
use sqlx::mysql::MySqlConnectOptions;

use crate::options::MySqlOptions;
use crate::set_up::Wanted;
use crate::settings::{IgnoreWith, ReplaceWith, ValuesInText};

/// The parameters that `sqlx` knows, grouped by spelling, the usual one first. `sqlx` silently ignores others, which hides
/// mistakes.
const KNOWN_TO_SQLX: [&[&str]; 9] = [
    &["ssl-mode", "sslmode"],
    &["ssl-ca", "sslca"],
    &["ssl-cert", "sslcert"],
    &["ssl-key", "sslkey"],
    &["charset"],
    &["collation"],
    &["statement-cache-capacity"],
    &["socket"],
    &["timezone", "time-zone"],
];

/// Our own parameters.
const OWN: [&str; 7] = [
    "max_connections",
    "connect_timeout",
    "ignore_with",
    "replace_with",
    "abandoned_writes",
    "late_write_limit",
    "values_in_text",
];

/// The name of the product in the errors of a DSN.
const PRODUCT: &str = "mysql";

/// Statements that stay prepared per connection: enough for about ten tables, each with several row counts. Each
/// takes about 500 bytes of server memory per value, so 1.7 MB for 500 rows of seven columns.
const STATEMENTS: usize = 256;

/// Rejects values with which no row could be written, or which `sqlx` accepts and ignores.
fn check_passed_on(name: &str, value: &str) -> Result<(), OpenError> {
    let is_refused = match name {
        "charset" => !value.eq_ignore_ascii_case("utf8mb4"),
        "statement-cache-capacity" => value == "0",
        "timezone" => !matches!(
            value.replace("%2B", "+").replace("%2b", "+").replace("%3A", ":").as_str(),
            "+00:00" | "-00:00" | "UTC"
        ),
        _ => false,
    };
    let problem = match name {
        _ if !is_refused => return Ok(()),
        "charset" => "charset in the mysql dsn must be utf8mb4, or text would be changed; leave it out",
        "timezone" => {
            "timezone in the mysql dsn must be UTC (+00:00), because timestamptz values are sent in UTC; leave it out"
        }
        _ => "statement-cache-capacity in the mysql dsn must not be 0, or every batch is prepared twice; leave it out",
    };
    Err(OpenError::invalid_options(problem))
}

/// Rejects TLS files that would not be used.
fn check_certificates(connect: &MySqlConnectOptions, given: &[&str]) -> Result<(), OpenError> {
    use sqlx::mysql::MySqlSslMode as Mode;
    let mode = connect.get_ssl_mode();
    let problem = match mode {
        Mode::VerifyCa | Mode::VerifyIdentity => return Ok(()),
        _ if given.contains(&"ssl-ca") => {
            "ssl-ca in the mysql dsn is used only with ssl-mode=VERIFY_CA or VERIFY_IDENTITY; give one of these, or leave ssl-ca out"
        }
        Mode::Disabled if given.iter().any(|name| matches!(*name, "ssl-cert" | "ssl-key")) => {
            "ssl-cert and ssl-key in the mysql dsn are not used with ssl-mode=DISABLED; give another mode, or leave them out"
        }
        _ => return Ok(()),
    };
    Err(OpenError::invalid_options(problem))
}

/// The spellings of a parameter; `None` if it is not known.
fn spellings(name: &str) -> Option<&'static [&'static str]> {
    let of_sqlx = KNOWN_TO_SQLX.into_iter().find(|names| names.contains(&name));
    of_sqlx.or_else(|| OWN.chunks(1).find(|own| own[0] == name))
}

impl FromStr for MySqlOptions {
    type Err = OpenError;

    fn from_str(dsn: &str) -> Result<Self, OpenError> {
        const FORM: &str = "use mysql://user:password@host:3306/database";
        let Some(rest) = dsn.strip_prefix("mysql://").or_else(|| dsn.strip_prefix("mariadb://")) else {
            return Err(wrong_scheme(PRODUCT, dsn.split_once("://").map(|(scheme, _)| scheme), FORM));
        };
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password with one of these characters unencoded would be parsed as a host or a parameter, and be
        // shown.
        let (host, path) = address.split_once('/').unwrap_or((address, ""));
        if rest.contains('#') || query.contains('@') || path.contains('@') || host.matches('@').count() > 1 {
            let problem = "the mysql dsn has a character in user, password or database that must be percent-encoded: write # as %23, / as %2F, ? as %3F, @ as %40";
            return Err(OpenError::invalid_options(problem));
        }
        // The text before a missing host may be a password.
        let parameters: Vec<Parameter<'_>> = parameters(PRODUCT, query, host.contains('@')).collect();
        check_once(&parameters, spellings)?;
        let mut own = Vec::new();
        let mut given: Vec<&str> = Vec::new();
        let mut passed_on = String::new();
        for parameter in parameters {
            let Some(names) = KNOWN_TO_SQLX.into_iter().find(|names| names.contains(&parameter.name())) else {
                own.push(parameter);
                continue;
            };
            check_passed_on(names[0], parameter.encoded())?;
            given.push(names[0]);
            passed_on.push_str(&format!("{}={}&", parameter.name(), parameter.encoded()));
        }
        let url = format!("mysql://{address}?{passed_on}");
        // The reason may quote the value of any part, so it is not shown.
        let connect = url.parse::<MySqlConnectOptions>().map_err(|_| {
            let problem = format!("the mysql dsn is not a URL, or one of its parameters has an invalid value; {FORM}, with special characters percent-encoded");
            OpenError::invalid_options(problem)
        })?;
        // With the default of sqlx (100), four tables evict each other's statements.
        let connect = match given.contains(&"statement-cache-capacity") {
            true => connect,
            false => connect.statement_cache_capacity(STATEMENTS),
        };
        let wanted = Wanted { leaves_rest_to_sqlx: false, collation: connect.get_collation().map(str::to_owned) };
        // Our own statement sets these, where the session lacks them.
        let connect = connect.set_names(false).timezone(None).pipes_as_concat(false).no_engine_substitution(false);
        let mut options = Self::from_connect_options(connect);
        options.wanted = Arc::new(wanted);
        check_certificates(&options.connect, &given)?;
        for parameter in own {
            options.set(parameter)?;
        }
        Ok(options)
    }
}

impl MySqlOptions {
    /// Sets one of our own parameters.
    fn set(&mut self, parameter: Parameter<'_>) -> Result<(), OpenError> {
        let settings = &mut self.settings;
        match parameter.name() {
            "max_connections" => self.max_connections = parameter.count()?,
            "connect_timeout" => self.connect_timeout = parameter.duration()?,
            "late_write_limit" => settings.late_write_limit = Some(parameter.duration_or_zero()?),
            "abandoned_writes" => {
                settings.abandoned_writes =
                    parameter.choice(&[("kill", AbandonedWrites::Kill), ("wait", AbandonedWrites::Wait)])?;
            }
            "ignore_with" => {
                settings.ignore_with =
                    parameter.choice(&[("exact", IgnoreWith::Exact), ("insert_ignore", IgnoreWith::InsertIgnore)])?;
            }
            "replace_with" => {
                settings.replace_with =
                    parameter.choice(&[("update", ReplaceWith::Update), ("replace_into", ReplaceWith::ReplaceInto)])?;
            }
            "values_in_text" => {
                settings.values_in_text = parameter.choice(&[
                    ("auto", ValuesInText::Auto),
                    ("never", ValuesInText::Never),
                    ("always", ValuesInText::Always),
                ])?;
            }
            _ => {
                let of_sqlx = KNOWN_TO_SQLX.iter().map(|names| names[0]);
                return Err(parameter.unknown(&OWN.into_iter().chain(of_sqlx).collect::<Vec<_>>()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dsns_carry_every_setting() {
        let options: MySqlOptions = "mariadb://a:b@h:3307/d?max_connections=3&connect_timeout=250ms&ignore_with=insert_ignore&replace_with=replace_into&ssl-mode=DISABLED"
            .parse()
            .unwrap();
        assert_eq!((options.max_connections, options.connect_timeout), (3, Duration::from_millis(250)));
        assert_eq!(options.settings.ignore_with, IgnoreWith::InsertIgnore);
        assert_eq!(options.settings.replace_with, ReplaceWith::ReplaceInto);
        assert_eq!(options.server(), "mysql server h:3307, database \"d\"");
        let options: MySqlOptions = "mysql://h?abandoned_writes=wait&late_write_limit=15min".parse().unwrap();
        assert_eq!(options.settings.abandoned_writes, AbandonedWrites::Wait);
        assert_eq!(options.settings.late_write_limit, Some(Duration::from_secs(900)));
        let options: MySqlOptions = "mysql://h".parse().unwrap();
        assert_eq!((options.max_connections, options.connect_timeout), (8, Duration::from_secs(5)));
        assert_eq!(
            (options.settings.ignore_with, options.settings.replace_with),
            (IgnoreWith::Exact, ReplaceWith::Update)
        );
        let url =
            "mysql://h/d?charset=utf8mb4&time-zone=UTC&ssl-mode=VERIFY_CA&ssl-ca=/ca.pem&statement-cache-capacity=7";
        assert!(url.parse::<MySqlOptions>().is_ok());
        let options: MySqlOptions = "mysql://h/d?socket=/run/x.sock".parse().unwrap();
        assert_eq!(options.server(), "mysql server at socket /run/x.sock, database \"d\"");
    }

    #[test]
    fn mistakes_say_what_to_do_and_show_no_password() {
        let check = |dsn: &str, part: &str| {
            let error = dsn.parse::<MySqlOptions>().unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(part), "{shown:?} does not contain {part:?}");
            assert!(!shown.contains("secret"), "{shown:?}");
        };
        check("postgres://user:secret@host/db", "scheme \"postgres\"");
        check("user:secret@host", "no scheme");
        check("secret", "no scheme");
        check("mysql://user:12#secret@host/db", "percent-encoded");
        check("mysql://user:12?secret@host/db", "percent-encoded");
        check("mysql://user:x@secret@host/db", "percent-encoded");
        check("mysql://user:se/secret@host/db", "percent-encoded");
        check("mysql://user:12/secret@host/db", "percent-encoded");
        check("mysql://user:12?secret", "unknown parameter in");
        check("mysql://user:12?secret=1", "unknown parameter in");
        check("mysql://user:x@host/db?secret", "unknown parameter in");
        check("mysql://user:secret@host:port/db", "not a URL");
        check("mysql://user:secret@host/db?ssl-mode=secret", "has an invalid value");
        check("mysql://user:secret@host/db?timeout=3", "unknown parameter \"timeout\"");
        check("mysql://user:secret@host/db?max_connections=0", "a number from 1 on");
        check("mysql://user:secret@host/db?connect_timeout=0", "a duration above 0");
        check("mysql://user:secret@host/db?connect_timeout=inf", "a duration above 0");
        check("mysql://user:secret@host/db?connect_timeout_ms=5", "did you mean connect_timeout?");
        check("mysql://user:secret@host/db?ignore_with=secret", "exact or insert_ignore");
        check("mysql://user:secret@host/db?replace_with=secret", "update or replace_into");
        check("mysql://user:secret@host/db?abandoned_writes=secret", "kill or wait");
        check("mysql://user:secret@host/db?values_in_text=secret", "auto, never or always");
        check("mysql://user:secret@host/db?late_write_limit=soon", "a duration such as");
        // Parameters that sqlx would ignore, or with which no row could be written.
        check("mysql://user:secret@host/db?charset=latin1", "must be utf8mb4");
        check("mysql://user:secret@host/db?timezone=%2B02:00", "must be UTC");
        check("mysql://user:secret@host/db?statement-cache-capacity=0", "must not be 0");
        check("mysql://user:secret@host/db?ssl-ca=/ca.pem", "used only with ssl-mode=VERIFY_CA");
        check("mysql://user:secret@host/db?ssl-mode=DISABLED&ssl-cert=/c.pem", "not used with ssl-mode=DISABLED");
        check("mysql://user:secret@host/db?ssl-mode=REQUIRED&sslmode=DISABLED", "ssl-mode or sslmode is given twice");
        check("mysql://user:secret@host/db?max_connections=2&max_connections=3", "max_connections is given twice");
    }
}
