//! Owns the DSN: the address of the server, and the parameters.
//! Must not know commands or connections.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use batchsql_core::dsn::{self, Parameter, check_once, parameters, wrong_scheme};
use batchsql_core::{AbandonedWrites, OpenError};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

use crate::options::{Commands, RedisOptions, Sentinels};
use crate::transport::TlsClient;

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;

const FORMS: &str = "use redis://[user[:password]@]host[:port][/database], rediss://…, unix:///path, for a cluster \
                     redis://host1,host2?cluster=true or, for sentinels, redis+sentinel://host1,host2/master";

/// The name of the product in the errors of a DSN.
const PRODUCT: &str = "redis";

/// The parameters of every kind of DSN.
const KNOWN: [&str; 10] = [
    "max_connections",
    "connect_timeout",
    "node_timeout",
    "silence_limit",
    "abandoned_writes",
    "late_write_limit",
    "protocol",
    "ca",
    "cert",
    "key",
];

const DEFAULT_NODE_TIMEOUT: Duration = Duration::from_secs(10);

fn wrong(problem: impl fmt::Display) -> OpenError {
    OpenError::invalid_options(format!("{problem} in the redis dsn"))
}

impl FromStr for RedisOptions {
    type Err = OpenError;

    fn from_str(dsn: &str) -> Result<Self, OpenError> {
        let Some((scheme, rest)) = dsn.split_once("://") else { return Err(wrong_scheme(PRODUCT, None, FORMS)) };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (is_tls, is_sentinel) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            "unix" | "redis+unix" => return unix(rest, query),
            other => return Err(wrong_scheme(PRODUCT, Some(other), FORMS)),
        };
        if is_tls && !cfg!(feature = "tls") {
            return Err(OpenError::invalid_options("TLS (rediss) needs the feature \"tls\" of this crate; turn it on"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('@') {
            // A password with this character unencoded: its start would be a host, and its end a name that is shown.
            return Err(wrong(
                "a / in the user or the password is not encoded, or an @ behind the hosts (write %2F, %40)",
            ));
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let mut settings = RedisConnectionInfo::default();
        if let Some(user) = user {
            let (name, password) = user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
            if !name.is_empty() {
                settings = settings.set_username(decoded(name, "the user")?);
            }
            // A user without a password has an empty one: `user:@host`.
            if let Some(password) = password.filter(|password| !name.is_empty() || !password.is_empty()) {
                settings = settings.set_password(decoded(password, "the password")?);
            }
        }
        let (master, path) = if is_sentinel { path.split_once('/').unwrap_or((path, "")) } else { ("", path) };
        if !path.is_empty() {
            settings = settings.set_db(database(path)?);
        }
        // This is checked before the parameters: a password that was not encoded may look like parameters.
        let port = if is_sentinel { DEFAULT_SENTINEL_PORT } else { DEFAULT_PORT };
        let hosts = hosts.split(',').map(|host| host_and_port(host, port)).collect::<Result<Vec<_>, _>>()?;
        let mut extra = Extra::default();
        extra.read(query, if is_sentinel { &["sentinel_user", "sentinel_password"] } else { &["cluster"] })?;
        if is_sentinel && master.is_empty() {
            return Err(wrong("the name of the master is missing (redis+sentinel://host/master)"));
        }
        let is_cluster = match extra.special.get("cluster").map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(wrong("cluster is neither true nor false")),
        };
        if is_cluster && settings.db() != 0 {
            return Err(wrong("a cluster has only database 0, but another one is named"));
        }
        if !is_cluster && extra.node_timeout.is_some() {
            return Err(wrong("node_timeout is for a cluster; remove it, or add cluster=true"));
        }
        if !is_sentinel && !is_cluster && hosts.len() > 1 {
            return Err(wrong("several hosts are for a cluster; add cluster=true, or name one"));
        }
        let addresses: Vec<ConnectionAddr> = hosts
            .into_iter()
            .map(|(host, port)| match is_tls {
                true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
                false => ConnectionAddr::Tcp(host, port),
            })
            .collect();
        let with = |settings: &RedisConnectionInfo| {
            addresses.iter().map(|addr| server(addr.clone(), settings.clone())).collect::<Result<Vec<_>, _>>()
        };
        let mut options = extra.options(with(&settings)?, is_cluster, is_tls)?;
        if is_sentinel {
            let mut settings = RedisConnectionInfo::default();
            if extra.special.contains_key("sentinel_user") && !extra.special.contains_key("sentinel_password") {
                return Err(wrong("sentinel_user is named without sentinel_password; add it"));
            }
            if let Some(user) = extra.special.get("sentinel_user") {
                settings = settings.set_username(user);
            }
            if let Some(password) = extra.special.get("sentinel_password") {
                settings = settings.set_password(password);
            }
            let master = decoded(master, "the name of the master")?;
            options.sentinels = Some(Sentinels { hosts: with(&settings)?, master });
        }
        Ok(options)
    }
}

/// The values of the parameters of a DSN.
#[derive(Default)]
struct Extra {
    max_connections: Option<usize>,
    connect_timeout: Option<Duration>,
    node_timeout: Option<Duration>,
    protocol: Option<ProtocolVersion>,
    abandoned_writes: AbandonedWrites,
    late_write_limit: Option<Duration>,
    silence_limit: Option<Duration>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    /// Parameters that only some kinds of DSN accept.
    special: HashMap<&'static str, String>,
}

impl Extra {
    /// Reads the parameters. `special`: those of this kind of DSN.
    fn read(&mut self, query: &str, special: &[&'static str]) -> Result<(), OpenError> {
        let parameters: Vec<Parameter<'_>> = parameters(PRODUCT, query, true).collect();
        check_once(&parameters, |name| KNOWN.chunks(1).chain(special.chunks(1)).find(|known| known[0] == name))?;
        parameters.into_iter().try_for_each(|parameter| self.set(parameter, special))
    }

    fn set(&mut self, parameter: Parameter<'_>, special: &[&'static str]) -> Result<(), OpenError> {
        match parameter.name() {
            "max_connections" => self.max_connections = Some(parameter.count::<u32>()? as usize),
            "connect_timeout" => self.connect_timeout = Some(parameter.duration()?),
            "node_timeout" => self.node_timeout = Some(parameter.duration()?),
            "silence_limit" => self.silence_limit = Some(parameter.duration()?),
            "late_write_limit" => self.late_write_limit = Some(parameter.duration_or_zero()?),
            "abandoned_writes" => {
                self.abandoned_writes =
                    parameter.choice(&[("kill", AbandonedWrites::Kill), ("wait", AbandonedWrites::Wait)])?;
            }
            "protocol" => {
                let (two, three) = (ProtocolVersion::RESP2, ProtocolVersion::RESP3);
                let choices = [("2", two), ("3", three), ("resp2", two), ("resp3", three)];
                self.protocol = Some(parameter.choice(&choices)?);
            }
            "ca" => self.ca = Some(parameter.text()?.into_owned()),
            "cert" => self.cert = Some(parameter.text()?.into_owned()),
            "key" => self.key = Some(parameter.text()?.into_owned()),
            name => match special.iter().find(|known| **known == name) {
                Some(known) => drop(self.special.insert(known, parameter.text()?.into_owned())),
                None => return Err(parameter.unknown(&[special, &KNOWN].concat())),
            },
        }
        Ok(())
    }

    fn options(&self, seeds: Vec<ConnectionInfo>, is_cluster: bool, is_tls: bool) -> Result<RedisOptions, OpenError> {
        Ok(RedisOptions {
            seeds,
            sentinels: None,
            is_cluster,
            protocol: self.protocol,
            max_connections: self.max_connections.unwrap_or(4),
            connect_timeout: self.connect_timeout.unwrap_or(Duration::from_secs(5)),
            node_timeout: self.node_timeout.unwrap_or(DEFAULT_NODE_TIMEOUT),
            abandoned_writes: self.abandoned_writes,
            late_write_limit: self.late_write_limit,
            silence_limit: self.silence_limit.unwrap_or(Duration::from_secs(30)),
            tls: self.tls(is_tls)?,
            password: None,
            commands: Commands::default(),
        })
    }

    fn tls(&self, is_tls: bool) -> Result<Option<TlsClient>, OpenError> {
        let files = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        match files.into_iter().find(|(_, file)| file.is_some()) {
            Some((name, _)) if !is_tls => {
                Err(wrong(format_args!("{name} is for rediss://, but the scheme has no TLS; remove one of them")))
            }
            _ if !is_tls => Ok(None),
            _ => tls_client(self),
        }
    }
}

#[cfg(feature = "tls")]
fn tls_client(extra: &Extra) -> Result<Option<TlsClient>, OpenError> {
    let identity = match (&extra.cert, &extra.key) {
        (Some(cert), Some(key)) => Some((cert.as_str(), key.as_str())),
        (None, None) => None,
        _ => return Err(wrong("cert and key belong together, but only one of them is named")),
    };
    TlsClient::new(extra.ca.as_deref(), identity).map(Some).map_err(OpenError::invalid_options)
}

#[cfg(not(feature = "tls"))]
fn tls_client(_: &Extra) -> Result<Option<TlsClient>, OpenError> {
    Err(OpenError::invalid_options("TLS (rediss) needs the feature \"tls\" of this crate; turn it on"))
}

fn unix(path: &str, query: &str) -> Result<RedisOptions, OpenError> {
    if !cfg!(unix) {
        return Err(OpenError::invalid_options("this system has no unix sockets; use redis://host"));
    }
    if !path.starts_with('/') {
        return Err(wrong("the path of the socket is not absolute"));
    }
    if path.split_once(':').is_some_and(|(_, behind)| behind.contains('@')) {
        return Err(wrong(
            "the path of the socket has a : and an @, as a user and a password have; name these as parameters \
             (unix:///path?user=…&pass=…), and write an @ of the path as %40",
        ));
    }
    let mut extra = Extra::default();
    extra.read(query, &["db", "user", "pass"])?;
    let mut settings = RedisConnectionInfo::default();
    if let Some(db) = extra.special.get("db") {
        settings = settings.set_db(database(db)?);
    }
    if let Some(user) = extra.special.get("user") {
        settings = settings.set_username(user);
    }
    if let Some(password) = extra.special.get("pass") {
        settings = settings.set_password(password);
    }
    let addr = ConnectionAddr::Unix(decoded(path, "the path of the socket")?.into());
    for (name, is_given) in
        [("node_timeout", extra.node_timeout.is_some()), ("silence_limit", extra.silence_limit.is_some())]
    {
        if is_given {
            return Err(wrong(format_args!("{name} has no meaning for a unix socket; remove it")));
        }
    }
    extra.options(vec![server(addr, settings)?], false, false)
}

/// The connection info of one server.
fn server(addr: ConnectionAddr, settings: RedisConnectionInfo) -> Result<ConnectionInfo, OpenError> {
    // It cannot fail for a valid address; its error is not shown, because it might contain a password.
    let plain = addr.into_connection_info().map_err(|_| wrong("an address that is not valid"))?;
    Ok(plain.set_redis_settings(settings))
}

fn decoded(text: &str, what: &str) -> Result<String, OpenError> {
    dsn::decoded(PRODUCT, text, what).map(Into::into)
}

fn database(text: &str) -> Result<i64, OpenError> {
    match text.trim_end_matches('/').parse() {
        Ok(number) if (0..=i64::from(i32::MAX)).contains(&number) => Ok(number),
        _ => Err(wrong("the database is not a number from 0 on")),
    }
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
fn host_and_port(address: &str, default_port: u16) -> Result<(String, u16), OpenError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(|| wrong("an IPv6 address has no closing bracket"))?;
            (host, after.strip_prefix(':'))
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let port = match port {
        None => default_port,
        Some(port) => port.parse().map_err(|_| wrong("the port is not a number up to 65535"))?,
    };
    match host {
        "" => Err(OpenError::invalid_options(format!("the redis dsn names no host; {FORMS}"))),
        host => Ok((decoded(host, "the host")?, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(dsn: &str) -> RedisOptions {
        dsn.parse().unwrap_or_else(|error| panic!("{dsn}: {error}"))
    }

    #[test]
    fn dsns_name_servers() {
        let check = |dsn: &str, address: &str, user: Option<&str>, password: Option<&str>, db| {
            let options = parsed(dsn);
            let settings = options.seeds[0].redis_settings();
            assert_eq!(options.address(), address, "{dsn}");
            assert_eq!((settings.username(), settings.password(), settings.db()), (user, password, db), "{dsn}");
        };
        check("redis://localhost", "localhost:6379", None, None, 0);
        check("redis://h:7000/3", "h:7000", None, None, 3);
        check("redis://:p%40ss%2F@h", "h:6379", None, Some("p@ss/"), 0);
        check("redis://u:p@ss@h/1/", "h:6379", Some("u"), Some("p@ss"), 1);
        check("redis://[::1]:7000", "::1:7000", None, None, 0);
        check("redis://u:@h", "h:6379", Some("u"), Some(""), 0);
        check("redis://u@h", "h:6379", Some("u"), None, 0);
        check("redis+sentinel://u:p@h,i:7000/shop/2", "h:26379, i:7000", Some("u"), Some("p"), 2);
        check("unix:///run/redis.sock?db=2&user=u&pass=p%26w", "/run/redis.sock", Some("u"), Some("p&w"), 2);
        check("unix:///run/redis@1.sock", "/run/redis@1.sock", None, None, 0);
        check("redis://u:p@a:7000,b?cluster=true", "a:7000, b:6379", Some("u"), Some("p"), 0);
        assert!(parsed("redis://a,b?cluster=true").is_cluster && !parsed("redis://a?cluster=false").is_cluster);
    }

    #[test]
    fn parameters_are_settings() {
        let options = parsed("redis://h?max_connections=9&connect_timeout=250ms&protocol=2");
        assert_eq!((options.max_connections, options.connect_timeout), (9, Duration::from_millis(250)));
        assert_eq!(options.protocol, Some(ProtocolVersion::RESP2));
        let options = parsed("redis://h");
        assert_eq!((options.max_connections, options.connect_timeout), (4, Duration::from_secs(5)));
        assert_eq!(options.protocol, None);
    }

    #[test]
    fn mistakes_say_what_to_do_and_show_no_password() {
        let check = |dsn: &str, part: &str| {
            let message = dsn.parse::<RedisOptions>().unwrap_err().to_string();
            assert!(message.contains(part), "{dsn}: {message:?} does not contain {part:?}");
            assert!(!message.contains("secret"), "{message:?}");
        };
        check("postgres://user:secret@host/db", "scheme \"postgres\"");
        check("user:secret@host", "no scheme");
        check("user:secret://host", "no scheme");
        check("redis://", "names no host");
        check("redis://user:secret@", "names no host");
        check("redis://user:secret@host:port", "port is not a number");
        check("redis://user:secret@host:70000", "port is not a number");
        check("redis://user:sec?ret=secret@host", "port is not a number");
        check("redis://user:secret@host/sixteen", "not a number from 0 on");
        check("redis://user:secret@host/-1", "not a number from 0 on");
        check("redis://user:secret@[::1", "closing bracket");
        check("redis://user:%FFsecret@host", "not UTF-8");
        check("redis://host?pass=secret", "unknown parameter \"pass\"");
        check("redis://host?x@secret", "percent-encode special characters");
        check("redis://host?max_connections=0", "a number from 1 on");
        check("redis://host?connect_timeout=soon", "a duration above 0");
        check("redis://host?connect_timeout=inf", "a duration above 0");
        check("redis://host?node_timeout=0", "node_timeout in the redis dsn is not");
        check("redis://host?connect_timeout_ms=5", "did you mean connect_timeout?");
        check("redis://host?node_timeout_ms=5", "did you mean node_timeout?");
        check("redis://host?protocol=4", "is not 2, 3, resp2 or resp3");
        check("redis://host?protocol=2&protocol=2", "protocol is given twice");
        check("redis://host?ca=/nowhere", "ca is for rediss://");
        check("redis://user:secret@host/2?cluster=true", "only database 0");
        check("redis://user:secret@a,b", "add cluster=true");
        check("redis://user:secret@a?node_timeout=5", "node_timeout is for a cluster");
        check("redis+sentinel://user:secret@a,b", "name of the master is missing");
        check("redis+sentinel://a/shop?sentinel_user=secret", "without sentinel_password");
        check("redis+sentinel://a/shop?node_timeout=5", "node_timeout is for a cluster");
        check("unix:///run/redis.sock?silence_limit=5", "no meaning for a unix socket");
        check("rediss://a?cert=/nowhere", "belong together");
        check("redis://a?cluster=secret", "neither true nor false");
        check("unix://relative?pass=secret", "not absolute");
        check("unix://:secret@/run/redis.sock", "not absolute");
        check("unix:///:secret@/run/redis.sock", "name these as parameters");
        check("redis+unix:///user:secret@host/run/redis.sock", "name these as parameters");
        check("redis+sentinel://user:12/secret@host/shop", "is not encoded");
        check("redis://user:12/secret@host/2", "is not encoded");
    }
}
