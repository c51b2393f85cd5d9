//! Owns the settings of the sessions of our own pool, and the statement for those that a session lacks.
//! Must not know pools or options.
//!
//! The settings are read with SHOW, and only those that differ are set, with literals. A proxy that shares sessions pins
//! one to its client after a SET that it cannot follow, or after a statement with `@@`. If the server, or the first
//! statement that the proxy itself sends to it, has the settings, there is no SET.
//!
//! Example: a server has `sql_mode` STRICT_TRANS_TABLES, the time zone of its machine, and waits 50 s for a lock. The
//! statement sets a `sql_mode` with our modes added, the time zone, and waits of 20 s.

use crate::catalog::packet;
use crate::quoted;

/// Modes that every session needs: strict, so that nothing is silently cut off, and a 0 stays a 0 in an AUTO_INCREMENT
/// column too.
const MODES: [&str; 2] = ["STRICT_ALL_TABLES", "NO_AUTO_VALUE_ON_ZERO"];

/// Modes that `sqlx` sets by default. Expressions of users rely on the first one (`a || b`).
const MODES_OF_SQLX: [&str; 2] = ["PIPES_AS_CONCAT", "NO_ENGINE_SUBSTITUTION"];

/// With this mode of MariaDB an empty text would be NULL.
const REFUSED_MODE: &str = "EMPTY_STRING_IS_NULL";

/// The longest wait for a lock in seconds: shorter than the default `statement_timeout` of 30 s. Otherwise an abandoned
/// write could wait at the server for up to a day, alongside its retries.
const LOCK_WAIT: u64 = 20;

/// The errors that a session keeps in its list, where the server keeps none. Without it a number that a trigger raises cannot be
/// told from that of a lost connection.
const MAX_ERRORS: u64 = 64;

const COLLATION: &str = "utf8mb4_unicode_ci";

/// What a session should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The user's connect options decide about the time zone, the character set and the modes of `sqlx`, which then
    /// sets them itself.
    pub(crate) leaves_rest_to_sqlx: bool,
    /// The collation of the connection, if not the usual one.
    pub(crate) collation: Option<String>,
}

/// The variables that [`missing`] needs, and the packet limit.
pub(crate) const NAMES: [&str; 11] = [
    "sql_mode",
    "autocommit",
    "innodb_lock_wait_timeout",
    "lock_wait_timeout",
    "time_zone",
    "character_set_client",
    "character_set_connection",
    "character_set_results",
    "collation_connection",
    "max_allowed_packet",
    "max_error_count",
];

/// The statement for the settings that a session lacks; `None` if it has all of them. `found` are its variables.
pub(crate) fn missing(found: &[(String, String)], wanted: &Wanted) -> Option<String> {
    let value = |name: &str| found.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let mut parts: Vec<String> = Vec::new();
    let has = value("sql_mode").unwrap_or_default();
    let mut modes: Vec<&str> = has.split(',').filter(|mode| !mode.is_empty() && *mode != REFUSED_MODE).collect();
    let of_sqlx = if wanted.leaves_rest_to_sqlx { &[][..] } else { &MODES_OF_SQLX };
    for mode in of_sqlx.iter().chain(&MODES) {
        if !modes.contains(mode) {
            modes.push(mode);
        }
    }
    let modes = modes.join(",");
    if modes != has {
        parts.push(format!("sql_mode = {}", quoted::text(&modes)));
    }
    // Each statement is its own transaction.
    if value("autocommit") != Some("ON") {
        parts.push("autocommit = 1".to_owned());
    }
    for name in ["innodb_lock_wait_timeout", "lock_wait_timeout"] {
        if value(name).and_then(|value| value.parse().ok()).is_some_and(|seconds: u64| seconds > LOCK_WAIT) {
            parts.push(format!("{name} = {LOCK_WAIT}"));
        }
    }
    if value("max_error_count") == Some("0") {
        parts.push(format!("max_error_count = {MAX_ERRORS}"));
    }
    if !wanted.leaves_rest_to_sqlx {
        if value("time_zone") != Some("+00:00") {
            parts.push("time_zone = '+00:00'".to_owned());
        }
        let collation = wanted.collation.as_deref().unwrap_or(COLLATION);
        let sets = ["character_set_client", "character_set_connection", "character_set_results"];
        if sets.iter().any(|name| value(name) != Some("utf8mb4")) || value("collation_connection") != Some(collation) {
            parts.push(format!("NAMES utf8mb4 COLLATE {}", quoted::text(collation)));
        }
    }
    (!parts.is_empty()).then(|| format!("SET {}", parts.join(", ")))
}

/// The packet limit among the variables, in bytes.
pub(crate) fn packet_limit(found: &[(String, String)]) -> usize {
    let value = found.iter().find(|(name, _)| name == "max_allowed_packet");
    packet(value.map_or("", |(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 10] = [
        ("sql_mode", "PIPES_AS_CONCAT,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION"),
        ("autocommit", "ON"),
        ("innodb_lock_wait_timeout", "20"),
        ("lock_wait_timeout", "5"),
        ("time_zone", "+00:00"),
        ("character_set_client", "utf8mb4"),
        ("character_set_connection", "utf8mb4"),
        ("character_set_results", "utf8mb4"),
        ("collation_connection", "utf8mb4_unicode_ci"),
        ("max_allowed_packet", "4096"),
    ];

    fn with(name: &str, value: Option<&str>) -> Vec<(String, String)> {
        let others = GOOD.iter().filter(|(found, _)| *found != name);
        let all = others.copied().chain(value.map(|value| (name, value)));
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn only_what_a_session_lacks_is_set() {
        let wanted = Wanted::default();
        let check = |name, value, expected: Option<&str>| {
            assert_eq!(missing(&with(name, value), &wanted).as_deref(), expected, "{name} {value:?}");
        };
        check("", None, None);
        check("time_zone", Some("SYSTEM"), Some("SET time_zone = '+00:00'"));
        check("time_zone", None, Some("SET time_zone = '+00:00'"));
        check("autocommit", Some("OFF"), Some("SET autocommit = 1"));
        check("innodb_lock_wait_timeout", Some("50"), Some("SET innodb_lock_wait_timeout = 20"));
        check("innodb_lock_wait_timeout", Some("3"), None);
        check("max_error_count", Some("0"), Some("SET max_error_count = 64"));
        check("max_error_count", Some("1"), None);
        // A server that does not have the variable.
        check("lock_wait_timeout", None, None);
        check("character_set_results", Some("latin1"), Some("SET NAMES utf8mb4 COLLATE 'utf8mb4_unicode_ci'"));
        check("collation_connection", Some("utf8mb4_bin"), Some("SET NAMES utf8mb4 COLLATE 'utf8mb4_unicode_ci'"));
        let ours = "PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO";
        check("sql_mode", Some(ours), None);
        check("sql_mode", None, Some(&format!("SET sql_mode = '{ours}'")));
        check("sql_mode", Some(""), Some(&format!("SET sql_mode = '{ours}'")));
        check("sql_mode", Some("ANSI_QUOTES"), Some(&format!("SET sql_mode = 'ANSI_QUOTES,{ours}'")));
        check("sql_mode", Some(&format!("EMPTY_STRING_IS_NULL,{ours}")), Some(&format!("SET sql_mode = '{ours}'")));
        assert_eq!(packet_limit(&with("", None)), 4096);
        assert_eq!(packet_limit(&[]), 1024);
    }

    #[test]
    fn the_users_connect_options_decide_about_zone_and_characters() {
        let wanted = Wanted { leaves_rest_to_sqlx: true, collation: None };
        for (name, value) in [("time_zone", "+02:00"), ("collation_connection", "utf8mb4_bin")] {
            assert_eq!(missing(&with(name, Some(value)), &wanted), None, "{name}");
        }
        let modes = "STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO";
        assert_eq!(missing(&with("sql_mode", Some(modes)), &wanted), None);
        let collation = Wanted { leaves_rest_to_sqlx: false, collation: Some("utf8mb4_bin".to_owned()) };
        assert_eq!(missing(&with("collation_connection", Some("utf8mb4_bin")), &collation), None);
    }
}
