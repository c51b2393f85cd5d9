//! Owns the environment variables of the service, and their validation.
//! Must not know what is done with them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Result;

/// | variable | default | meaning |
/// |---|---|---|
/// | `DATABASE_URL` | a SQLite file that is removed at the end | the database, as `batchsql::connect` takes it |
/// | `DATABASE_URL_FILE` | | a file with the same, for example a secret |
/// | `ROWS_PER_SECOND` | 1000 | rows that are submitted, half of them per table; at most 1,000,000 |
/// | `PROMETHEUS_PORT` | 9090 | port of `/metrics`; 0 takes any free one |
/// | `METRICS_BIND` | 127.0.0.1 | addresses to listen on, separated by commas |
/// | `METRICS_TOKEN_FILE` | | a file with the bearer token that scrapes must show |
/// | `METRICS_TLS_CERT_FILE`, `METRICS_TLS_KEY_FILE` | | certificate and key (PEM); both or none |
/// | `METRICS_TLS_CA_FILE` | | the authority of that certificate, for `--health-check` only |
///
/// No `Debug`: a DSN may hold a password, and the token is one.
pub(crate) struct Settings {
    pub(crate) database_url: Option<String>,
    pub(crate) rows_per_second: f64,
    pub(crate) port: u16,
    pub(crate) bind: Vec<IpAddr>,
    pub(crate) token: Option<String>,
    pub(crate) tls: Option<Tls>,
}

pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authority: Option<PathBuf>,
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self> {
        let dsn = match (variable("DATABASE_URL")?, variable("DATABASE_URL_FILE")?) {
            (Some(_), Some(_)) => return Err("set DATABASE_URL or DATABASE_URL_FILE, not both".into()),
            (dsn, None) => dsn,
            (None, Some(file)) => Some(secret("DATABASE_URL_FILE", &file)?),
        };
        let tls = match (variable("METRICS_TLS_CERT_FILE")?, variable("METRICS_TLS_KEY_FILE")?) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let authority = variable("METRICS_TLS_CA_FILE")?.map(PathBuf::from);
                Some(Tls { certificate: certificate.into(), key: key.into(), authority })
            }
            _ => return Err("METRICS_TLS_CERT_FILE and METRICS_TLS_KEY_FILE belong together; set both or none".into()),
        };
        let rows_per_second = parsed("ROWS_PER_SECOND", "1000", "a number of rows")?;
        if !(0.0..=1e6).contains(&rows_per_second) {
            return Err("ROWS_PER_SECOND must be between 0 and 1000000".into());
        }
        let bind = variable("METRICS_BIND")?.unwrap_or_else(|| "127.0.0.1".to_owned());
        let address = |text: &str| text.trim().parse().map_err(|_| format!("METRICS_BIND: {text:?} is no IP address"));
        Ok(Self {
            database_url: dsn,
            rows_per_second,
            port: parsed("PROMETHEUS_PORT", "9090", "a port from 0 to 65535")?,
            bind: bind.split(',').map(address).collect::<std::result::Result<_, _>>()?,
            token: variable("METRICS_TOKEN_FILE")?.map(|file| secret("METRICS_TOKEN_FILE", &file)).transpose()?,
            tls,
        })
    }
}

/// An empty variable counts as not set: compose files cannot leave one out.
fn variable(name: &str) -> Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{name} is not valid UTF-8").into()),
    }
}

fn parsed<T: FromStr>(name: &str, default: &str, what: &str) -> Result<T> {
    let text = variable(name)?.unwrap_or_else(|| default.to_owned());
    Ok(text.parse().map_err(|_| format!("{name}: {text:?} is not {what}"))?)
}

fn secret(name: &str, file: &str) -> Result<String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: cannot read {file}: {error}"))?;
    match text.trim() {
        "" => Err(format!("{name}: {file} is empty").into()),
        text => Ok(text.to_owned()),
    }
}
