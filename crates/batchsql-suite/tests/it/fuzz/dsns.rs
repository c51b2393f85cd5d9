//! DSNs: any text is read or refused, and the password is in no error and no `Debug` output.

use std::fmt::Debug;

use batchsql::mysql::MySqlOptions;
use batchsql::postgres::PostgresOptions;
use batchsql::redis::RedisOptions;
use batchsql::sqlite::SqliteOptions;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::{config, corpus};

/// A part of every password.
const SECRET: &str = "hunter2hunter2";

/// Schemes and parameters that drivers know, and others.
const SCHEMES: [&str; 12] = [
    "postgres",
    "postgresql",
    "mysql",
    "mariadb",
    "redis",
    "rediss",
    "redis+sentinel",
    "redis+cluster",
    "unix",
    "sqlite",
    "",
    "MySQL",
];
const PARAMETERS: [&str; 22] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "options",
    "options[x]",
    "max_connections",
    "connect_timeout",
    "lock_timeout",
    "strategy",
    "target_session_attrs",
    "protocol",
    "db",
    "mode",
    "synchronous",
    "busy_timeout",
    "charset",
    "unknown",
];

/// Text with the characters that have a meaning in a DSN.
fn part() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        6 => prop::sample::select(b"abcXYZ0129-_.".to_vec()).prop_map(char::from),
        2 => prop::sample::select(b":/?#[]@!$&'()*+,;=% \\\"<>^`{|}\t".to_vec()).prop_map(char::from),
        1 => any::<char>(),
    ];
    let text = prop::collection::vec(character, 0..8).prop_map(String::from_iter);
    let usual = prop::sample::select(vec!["localhost", "127.0.0.1", "[::1]", "5432", "true", "10s", "%41", "%ff", "%"]);
    prop_oneof![2 => text, 1 => usual.prop_map(str::to_owned)]
}

fn password() -> impl Strategy<Value = String> {
    (part(), part()).prop_map(|(before, after)| format!("{before}{SECRET}{after}"))
}

fn parameter() -> impl Strategy<Value = String> {
    let name = prop_oneof![3 => prop::sample::select(&PARAMETERS[..]).prop_map(str::to_owned), 1 => part()];
    (name, part()).prop_map(|(name, value)| format!("{name}={value}"))
}

/// Something like a DSN, with a password in the place for it, or as a parameter.
fn dsn() -> impl Strategy<Value = String> {
    let address = (part(), password(), part(), prop::option::of(part()), prop::option::of(part()));
    let parameters = prop::collection::vec(parameter(), 0..4);
    let secret_parameter = prop::option::of(password().prop_map(|password| format!("password={password}")));
    let scheme = prop_oneof![9 => prop::sample::select(&SCHEMES[..]).prop_map(str::to_owned), 1 => part()];
    (scheme, address, parameters, secret_parameter).prop_map(|(scheme, address, mut parameters, secret)| {
        let (user, password, host, port, database) = address;
        parameters.extend(secret);
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let database = database.map_or_else(String::new, |database| format!("/{database}"));
        let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
        format!("{scheme}://{user}:{password}@{host}{port}{database}{query}")
    })
}

/// What is shown of a DSN: the options, or the error.
fn shown<T: Debug, E: Debug + ToString>(read: Result<T, E>) -> String {
    match read {
        Ok(options) => format!("{options:?}"),
        Err(error) => format!("{} {error:?}", error.to_string()),
    }
}

/// What the drivers show of a text. A file of SQLite has no password, and its name may be shown.
fn all_shown(dsn: &str) -> [String; 3] {
    let _ = shown(dsn.parse::<SqliteOptions>());
    [shown(dsn.parse::<PostgresOptions>()), shown(dsn.parse::<MySqlOptions>()), shown(dsn.parse::<RedisOptions>())]
}

/// Otherwise the tests below would only see errors.
#[test]
fn some_of_the_random_dsns_are_accepted() {
    let mut runner = TestRunner::deterministic();
    let dsns: Vec<String> = (0..4_000).map(|_| dsn().new_tree(&mut runner).unwrap().current()).collect();
    let accepted = [
        dsns.iter().filter(|dsn| dsn.parse::<PostgresOptions>().is_ok()).count(),
        dsns.iter().filter(|dsn| dsn.parse::<MySqlOptions>().is_ok()).count(),
        dsns.iter().filter(|dsn| dsn.parse::<RedisOptions>().is_ok()).count(),
    ];
    assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
}

#[test]
fn the_corpus_is_read_or_refused() {
    let mut accepted = 0;
    for case in corpus("dsns.txt") {
        let dsn = String::from_utf8(case).expect("a DSN is text");
        for (end, _) in dsn.char_indices() {
            all_shown(&dsn[..end]);
        }
        for shown in all_shown(&dsn) {
            assert!(!shown.contains(SECRET), "{dsn:?} shows {shown}");
            accepted += usize::from(shown.contains("Options"));
        }
    }
    assert!(accepted > 10, "{accepted} are accepted");
}

proptest! {
    #![proptest_config(config(3_000, file!()))]

    #[test]
    fn no_part_of_a_password_is_shown(dsn in dsn()) {
        // All of the text is the path of a socket then, which is shown.
        prop_assume!(!dsn.starts_with("unix:///"));
        for shown in all_shown(&dsn) {
            prop_assert!(!shown.contains(SECRET), "{dsn:?} shows {shown}");
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof![any::<String>(), dsn(), "[a-z+]{0,12}://\\PC{0,40}"], cut in any::<prop::sample::Index>()) {
        all_shown(&text);
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        all_shown(&text[..ends[cut.index(ends.len())]]);
    }
}
