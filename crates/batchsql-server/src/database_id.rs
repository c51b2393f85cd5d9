//! Owns which database a load was into, for files beside the loaded one: a hash of where it is, without a login or a password.
//! Must not know what is in it.

use std::path::{Path, PathBuf};

use batchsql::sqlite::SqliteOptions;
use sha2::{Digest, Sha256};

use crate::config::nats_sections::Stream;
use crate::config::settings::{Database, Destination};

/// Parameters of a DSN that say which database it is.
const PLACES: [&str; 8] = ["host", "hostaddr", "port", "dbname", "options", "socket", "db", "cluster"];

/// The identity of the place that rows are written to. Two names of one server (`localhost` and `127.0.0.1`) have two.
pub(crate) fn of_destination(destination: &Destination) -> String {
    match destination {
        Destination::Database(database) => of(database),
        Destination::Stream(stream) => {
            let mut servers = stream.nats.servers.clone();
            servers.sort_unstable();
            let Stream { name, prefix, .. } = &stream.stream;
            hash("nats", servers.into_iter().chain([name.clone(), prefix.clone()]))
        }
    }
}

/// The identity of a database.
pub(crate) fn of(database: &Database) -> String {
    let dsn = database.dsn.reveal();
    if dsn.starts_with("sqlite:") {
        let path = dsn.parse::<SqliteOptions>().ok().and_then(|options| options.path().map(whole));
        return hash("sqlite", path.map(|path| path.to_string_lossy().into_owned()));
    }
    of_server(dsn, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn of_server(dsn: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let (scheme, rest) = dsn.split_once("://").unwrap_or(("", dsn));
    let (kind, port) = match scheme {
        "postgres" | "postgresql" => ("postgres", "5432"),
        "mysql" | "mariadb" => ("mysql", "3306"),
        "redis" | "rediss" => ("redis", "6379"),
        "redis+sentinel" | "rediss+sentinel" => ("redis+sentinel", "26379"),
        _ => ("redis+unix", ""),
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = login.split(':').next().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let place = |(name, value)| match name {
        // A proxy in front of several databases may be told with it which one.
        "options" => without_search_path(&decoded(value)).map(|options| (name, options)),
        "options[search_path]" => None,
        _ => (PLACES.contains(&name) || name.starts_with("options[")).then(|| (name, value.to_owned())),
    };
    let mut given: Vec<(&str, String)> = pairs.filter_map(place).collect();
    given.sort_unstable();
    let has = |name: &str| given.iter().any(|(given, _)| *given == name);
    let of_environment = Some("PGPORT").filter(|_| kind == "postgres" && !has("port")).and_then(&variable);
    let port = of_environment.as_deref().unwrap_or(port);
    let mut parts: Vec<String> = hosts.split(',').map(|host| with_port(host, port)).collect();
    let mut database = path.trim_end_matches('/').to_owned();
    if kind == "postgres" {
        // What the DSN does not say is in the environment; without a database it is that of the user.
        if hosts.is_empty() && !has("host") && !has("hostaddr") {
            parts.extend(["PGHOSTADDR", "PGHOST"].into_iter().filter_map(&variable));
        }
        if hosts.is_empty() {
            parts.extend(of_environment.filter(|port| port != "5432"));
        }
        // They stand before those of the DSN.
        let options = variable("PGOPTIONS").and_then(|options| without_search_path(&options));
        parts.extend(options.map(|options| format!("PGOPTIONS={options}")));
        if database.is_empty() && !has("dbname") {
            let named = query.split('&').find_map(|pair| pair.strip_prefix("user="));
            let user = Some(user).filter(|user| !user.is_empty()).or(named).map(str::to_owned);
            let of_user = || user.or_else(|| variable("PGUSER")).unwrap_or_default();
            database = variable("PGDATABASE").unwrap_or_else(of_user);
        }
    }
    if kind == "redis" && database.is_empty() {
        database.push('0');
    }
    parts.push(database);
    parts.extend(given.iter().map(|(name, value)| format!("{name}={value}")));
    hash(kind, parts)
}

/// Options of a session without the schemas in which it looks for tables: the name of a table in a mark has its schema. `None` if
/// nothing is left.
fn without_search_path(options: &str) -> Option<String> {
    // It may be before a space, which then is a part of a value.
    if options.contains('\\') {
        return Some(options.to_owned());
    }
    let is_search_path = |setting: &str| {
        let name = setting.split('=').next().unwrap_or_default();
        name.replace('-', "_").eq_ignore_ascii_case("search_path")
    };
    let (mut left, mut words) = (Vec::new(), options.split_whitespace());
    while let Some(word) = words.next() {
        if word == "-c" {
            left.extend(words.next().filter(|setting| !is_search_path(setting)).map(|setting| format!("-c{setting}")));
        } else if !word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).is_some_and(is_search_path) {
            left.push(word.to_owned());
        }
    }
    (!left.is_empty()).then(|| left.join(" "))
}

/// A value of a DSN.
fn decoded(value: &str) -> String {
    let value = value.replace('+', " ");
    percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned()
}

fn with_port(host: &str, port: &str) -> String {
    let host = host.to_ascii_lowercase();
    let behind_address = host.rsplit_once(']').map_or(&*host, |(_, behind)| behind);
    if host.is_empty() || behind_address.contains(':') { host } else { format!("{host}:{port}") }
}

/// The path of a file without links. Without the file, its folder's.
fn whole(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

fn hash(kind: &str, parts: impl IntoIterator<Item = String>) -> String {
    let mut hash = Sha256::new();
    hash.update(kind);
    for part in parts {
        hash.update([0]);
        hash.update(part);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::problem::SourceText;
    use crate::config::read::parse;
    use crate::config::secret::Secret;

    #[test]
    fn a_login_does_not_make_another_database() {
        let id = |dsn: &str| of_server(dsn, |name| (name == "PGDATABASE").then(|| "of_environment".to_owned()));
        let same = |one: &str, other: &str| assert_eq!(id(one), id(other), "{one} {other}");
        same("postgres://app:hunter2@db/shop", "postgresql://other@DB:5432/shop?sslmode=require&password=x");
        same("postgres://app@/shop?port=7&host=%2Frun", "postgres:///shop?host=%2Frun&port=7");
        same("postgres://app@db", "postgres://db/of_environment");
        same("mysql://app:hunter2@db/shop", "mariadb://db:3306/shop/?max_connections=3");
        same("redis://:hunter2@db", "rediss://db:6379/0");
        same("redis://[::1]", "redis://[::1]:6379");
        // The name of the table has its schema.
        for options in [
            "options=-csearch_path%3Da",
            "options=-c%20search_path%3Da,b",
            "options=--search-path%3Da",
            "options[search_path]=b",
        ] {
            same("postgres://db/shop", &format!("postgres://db/shop?{options}"));
        }
        same("postgres://db/shop?options=--cluster%3Da", "postgres://db/shop?options=--cluster%3Da+-c+search_path%3Db");
        let all = [
            "postgres://db/shop",
            "postgres://db/shop2",
            "postgres://db:5433/shop",
            "postgres://db/shop?options=--cluster%3Da",
            "postgres://db/shop?options[role]=b",
            "postgres:///shop?host=%2Frun",
            "mysql://db/shop",
            "mysql://db/shop?socket=%2Frun%2Fa",
            "redis://db/1",
            "redis://db",
            "redis+sentinel://db/main",
            "unix:///run/redis",
            "unix:///run/redis?db=2",
        ];
        for (number, one) in all.iter().enumerate() {
            for other in &all[number + 1..] {
                assert_ne!(id(one), id(other), "{one} {other}");
            }
        }
        let with = |name: &'static str, value: &'static str, dsn: &str| {
            of_server(dsn, |asked| (asked == name).then(|| value.to_owned()))
        };
        for dsn in ["postgres://db/shop", "postgres:///shop?host=%2Frun", "postgres:///shop"] {
            assert_ne!(with("PGPORT", "5433", dsn), id(dsn), "{dsn}");
            assert_eq!(with("PGPORT", "5432", dsn), id(dsn), "{dsn}");
            assert_eq!(with("PGOPTIONS", "-csearch_path=a", dsn), id(dsn), "{dsn}");
            assert_ne!(with("PGOPTIONS", "--cluster=a", dsn), id(dsn), "{dsn}");
        }
        assert_eq!(with("PGPORT", "5433", "postgres://db/shop"), id("postgres://db:5433/shop"));
        for dsn in ["postgres://db:5432/shop", "postgres:///shop?host=%2Frun&port=5432", "mysql://db/shop"] {
            assert_eq!(with("PGPORT", "5433", dsn), id(dsn), "{dsn}");
        }
        assert!(id(all[0]).len() == 16 && id(all[0]).bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn a_stream_is_one_by_its_servers_name_and_prefix() {
        let id = |servers: &str, stream: &str| {
            let text = format!(
                "[nats]\nservers = \"{servers}\"\n[publish]\nstream = {{ {stream} }}\n[[tables]]\nname = \"orders\"\ncolumns = \
                 [{{ name = \"id\", type = \"i64\" }}]\n[durable]\nfolder = \"d\"\n[http]\n"
            );
            let source = SourceText::new(Path::new("b.toml"), text);
            of_destination(&parse(&source, &|_| None).unwrap().destination)
        };
        let one = id("nats://a, nats://b", "name = \"s\"");
        assert_eq!(one, id("nats://b, nats://a", "name = \"s\", prefix = \"ingest\", partitions = 4"));
        for other in ["name = \"s\", prefix = \"shop\"", "name = \"t\""] {
            assert_ne!(one, id("nats://a, nats://b", other), "{other}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_file_is_one_by_all_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a.db"), "").unwrap();
        std::os::unix::fs::symlink("a.db", path("link.db")).unwrap();
        let id = |dsn: String| of(&Database { dsn: Secret::new(dsn), connect_for: Duration::ZERO });
        let plain = id(format!("sqlite:{}", path("a.db").display()));
        assert_eq!(plain, id(format!("sqlite://{}?synchronous=full", path("link.db").display())));
        assert_ne!(plain, id(format!("sqlite:{}", path("b.db").display())));
    }
}
