//! Owns the mapping of Redis errors to error classes and messages.
//! Must not know commands or rows.
//!
//! The first word of the server's error decides. `ERR` is the generic word for errors without a code: there the text
//! decides, see `err.rs`. An unlisted error does not reject the row: with a proxy, a module or a later version it may
//! be transient. The row is retried until `retry_for` ends.
//!
//! Codes: `src/server.c` (`createSharedObjects`) and <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use batchsql_core::ErrorClass::{Permission, Resource, Row, Schema, Transient, Unknown};
use batchsql_core::{ErrorClass, SinkError};
use redis::{ErrorKind, RedisError, ServerError};

use crate::err;

/// The class and the message for a code. The server's own message is not included: the messages of `ERR` and
/// `NOPERM` may quote arguments.
fn meaning(code: &str) -> (ErrorClass, &'static str) {
    match code {
        "LOADING" => (Transient, "the server is loading its data"),
        "BUSY" => (Transient, "the server is busy with a script"),
        "TRYAGAIN" => (Transient, "the keys of the command are being moved in the cluster"),
        "CLUSTERDOWN" => (Transient, "the cluster does not serve the key at the moment"),
        // Dragonfly, KeyDB and Redis Enterprise return these while a shard starts or moves.
        "BUSYLOADING" | "UNAVAILABLE" => (Transient, "the server does not serve the key at the moment"),
        "MASTERDOWN" => (Transient, "the replica has lost its master"),
        "UNBLOCKED" => (Transient, "the server cancelled the command"),
        "OOM" => (Resource, "the server has no memory left (maxmemory); raise it or choose an eviction policy"),
        "READONLY" => (Resource, "the server is a replica, which accepts no writes; name the master"),
        "MISCONF" => {
            (Resource, "the server cannot save its data and rejects writes (stop-writes-on-bgsave-error); see its log")
        }
        "NOREPLICAS" => (Resource, "the server has not enough replicas to accept writes (min-replicas-to-write)"),
        "NOAUTH" => (Permission, "the server asks for a password; give it in the dsn"),
        "WRONGPASS" => (Permission, "the server does not know this user and password"),
        "NOPERM" => (Permission, "the user may not run this command on this key; see ACL SETUSER"),
        "DENIED" => (Permission, "the server is in protected mode and accepts only local connections"),
        "MOVED" | "ASK" => (Schema, "the server is part of a cluster; add cluster=true to the dsn"),
        "WRONGTYPE" => (Row, "the key holds a value of another type"),
        "CROSSSLOT" => (Row, "the keys of the command are in different slots of the cluster"),
        "EXECABORT" => (Transient, "the server cancelled the transaction of the row"),
        "NOSCRIPT" => (Row, "the server does not know the script; load it with SCRIPT LOAD"),
        "BUSYGROUP" => (Row, "the group of the stream already exists"),
        "NOGROUP" => (Row, "the group of the stream does not exist; create it"),
        "BUSYKEY" => (Row, "the key already exists"),
        "NOPROTO" => (Row, "the server does not know this version of the protocol"),
        "INVALIDOBJ" => (Row, "the key holds a damaged value"),
        // RedisTimeSeries.
        "TSDB:" => (Row, "the server refused the command: it does not fit the time series"),
        // Envoy: it may have forwarded the command.
        "upstream" => (Unknown, "the proxy lost the server, so it is not known whether the command was executed"),
        "no" => (Transient, "the proxy cannot reach a server"),
        "invalid" | "unsupported" => (Row, "the proxy does not support the command"),
        // This answers one command; the others were not rejected.
        _ => (Transient, "the server refused the command with an error that is not known here"),
    }
}

/// The error of one command. `is_script`: it may have run in part, and its errors come from its author.
pub(crate) fn reply_error(error: &ServerError, is_script: bool) -> SinkError {
    let code = code_of(error);
    let (class, text) = match code {
        "ERR" => err::meaning(error.details().unwrap_or_default()),
        code => meaning(code),
    };
    let (class, text) = match class {
        // Errors such as out of memory are returned before the first write of a script.
        Transient if is_script && (code == "ERR" || !is_listed(code)) => (Row, SCRIPT_FAILED),
        class => (class, text),
    };
    // Codes come from the server, not from a row; one with an unusual form is not included.
    let is_word = code.len() <= 32 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    if is_word { SinkError::with_code(class, code, text) } else { SinkError::new(class, text) }
}

const SCRIPT_FAILED: &str = "the script or function of the row failed; what it wrote before stays written";

/// The code of an error; for a cancelled transaction the code of its reason, if any.
pub(crate) fn code_of(error: &ServerError) -> &str {
    let reason = (error.code() == "EXECABORT")
        .then(|| error.details()?.strip_prefix("Transaction discarded because of: ")?.split(' ').next())
        .flatten();
    reason.unwrap_or(error.code())
}

/// Whether the code has a defined meaning.
fn is_listed(code: &str) -> bool {
    let (class, text) = meaning(code);
    !matches!(class, Row | Unknown) && text != meaning("").1
}

/// Whether this error shows that the server no longer accepts writes: its name may now lead to another
/// server, which only a new connection finds.
pub(crate) fn is_of_another_role(code: &str) -> bool {
    matches!(code, "READONLY" | "MASTERDOWN" | "NOAUTH")
}

/// Whether a proxy reports that it lost the server and may have forwarded the command.
pub(crate) fn is_of_lost_server(error: &ServerError) -> bool {
    reply_error(error, false).class() == ErrorClass::Unknown
}

/// Whether the server answered with an error.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
    error.code().is_some()
}

/// Whether the server will never run the command: the user has no right, or the server or its proxy has no such command.
pub(crate) fn never_runs(error: &RedisError) -> bool {
    match error.code() {
        None => false,
        Some("NOPERM") => true,
        Some("ERR") => err::meaning(error.detail().unwrap_or_default()).0 == Row,
        Some(code) => meaning(code).0 == Row,
    }
}

/// An error before a batch was sent: no connection, or a failed query about a command.
pub(crate) fn connect_error(error: &RedisError, address: &str) -> SinkError {
    if let Some(code) = error.code() {
        return match meaning(code) {
            // Neither a row nor a command is at fault yet. The server distinguishes these cases only by text.
            _ if code == "ERR" || !is_listed(code) => SinkError::with_code(
                ErrorClass::Transient,
                if code == "ERR" { code } else { "other" },
                format!(
                    "redis at {address} refuses: too many clients (maxclients), no such database, or no right to SELECT it"
                ),
            ),
            (class, text) => SinkError::with_code(class, code, format!("redis at {address}: {text}")),
        };
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            SinkError::new(ErrorClass::Permission, format!("redis at {address} does not know this user and password"))
        }
        ErrorKind::RESP3NotSupported => SinkError::new(
            ErrorClass::Schema,
            format!("redis at {address} is older than version 6; remove protocol=3 from the dsn"),
        ),
        ErrorKind::Io if error.is_timeout() => silent(address),
        ErrorKind::Io if error.is_connection_refusal() => {
            SinkError::new(ErrorClass::Transient, format!("no server listens at {address}; check host and port"))
        }
        ErrorKind::Io if error.is_connection_dropped() => SinkError::new(
            ErrorClass::Transient,
            format!(
                "{address} closed the connection in the handshake; check that it is a redis server, its TLS and its maxclients"
            ),
        ),
        ErrorKind::Parse => {
            SinkError::new(ErrorClass::Transient, format!("{address} does not answer like redis; check host and port"))
        }
        _ => SinkError::new(
            ErrorClass::Transient,
            format!("cannot connect to redis at {address}; check host, port, certificates and network"),
        ),
    }
}

/// Whether the error means an unknown command, which the server reports only as text.
pub(crate) fn is_unknown_command(error: &RedisError) -> bool {
    let begins = |text: &str| text.get(..15).is_some_and(|start| start.eq_ignore_ascii_case("unknown command"));
    error.code() == Some("ERR") && error.detail().is_some_and(begins)
}

/// The error to report if all of several servers failed: a transient one, if there is one.
pub(crate) fn of_several(mut errors: Vec<SinkError>) -> SinkError {
    let transient = errors.iter().position(SinkError::is_retryable);
    let chosen = transient.unwrap_or_else(|| errors.len().saturating_sub(1));
    if chosen < errors.len() {
        return errors.swap_remove(chosen);
    }
    SinkError::new(ErrorClass::Transient, "no server was queried")
}

/// No answer in time, before a batch was sent.
pub(crate) fn silent(address: &str) -> SinkError {
    let text = format!("redis at {address} does not answer within the connect timeout; check host, port and firewall");
    SinkError::new(ErrorClass::Transient, text)
}

/// A node of a cluster has not answered, and the others must not wait for it.
pub(crate) fn late(address: &str) -> SinkError {
    let text = format!("redis at {address} did not answer within node_timeout, so it is not known what it wrote");
    SinkError::new(ErrorClass::Unknown, text)
}

/// The link broke after the batch may have been sent.
pub(crate) fn lost(address: &str) -> SinkError {
    SinkError::new(ErrorClass::Unknown, format!("the connection to redis at {address} broke before the replies came"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> ServerError {
        let reply = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        ServerError::try_from(reply.extract_error().unwrap_err()).unwrap()
    }

    #[test]
    fn a_command_that_may_run_later_is_told_apart() {
        let never = |line: &str| {
            let reply = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
            never_runs(&reply.extract_error().unwrap_err())
        };
        for line in ["NOPERM no rights", "ERR unknown command 'CONFIG'", "unsupported command"] {
            assert!(never(line), "{line}");
        }
        for line in ["BUSY a script", "LOADING the data", "NOAUTH a password", "ERR something else", "OTHER word"] {
            assert!(!never(line), "{line}");
        }
    }

    #[test]
    fn codes_have_their_class() {
        let check = |line, expected| assert_eq!(reply_error(&error(line), false).class(), expected, "{line}");
        check("LOADING Redis is loading the dataset in memory", ErrorClass::Transient);
        check("TRYAGAIN Multiple keys request during rehashing of slot", ErrorClass::Transient);
        check("CLUSTERDOWN Hash slot not served", ErrorClass::Transient);
        check("BUSY Redis is busy running a script", ErrorClass::Transient);
        check("OOM command not allowed when used memory > 'maxmemory'.", ErrorClass::Resource);
        check("READONLY You can't write against a read only replica.", ErrorClass::Resource);
        check("MISCONF Redis is configured to save RDB snapshots", ErrorClass::Resource);
        check("NOREPLICAS Not enough good replicas to write.", ErrorClass::Resource);
        check("NOPERM this user has no permissions to run the 'set' command", ErrorClass::Permission);
        check("NOAUTH Authentication required.", ErrorClass::Permission);
        check("MOVED 3999 127.0.0.1:6381", ErrorClass::Schema);
        check("WRONGTYPE Operation against a key holding the wrong kind of value", ErrorClass::Row);
        check("ERR value is not an integer or out of range", ErrorClass::Row);
        check("ERR wrong number of arguments for 'set' command", ErrorClass::Row);
        check("INVALIDOBJ Corrupted HLL object detected", ErrorClass::Row);
        check("TSDB: the key does not exist", ErrorClass::Row);
        // Unlisted errors may be transient: a proxy, a module.
        check("SOMEMODULE says no", ErrorClass::Transient);
        check("ERR handle request, backend conn reset", ErrorClass::Unknown);
        check("ERR Connection timed out", ErrorClass::Unknown);
        check("ERR no server available", ErrorClass::Transient);
        check("upstream failure", ErrorClass::Unknown);
        check("no upstream host", ErrorClass::Transient);
        check("NOAUTH Authentication required.", ErrorClass::Permission);
        check("EXECABORT Transaction discarded because of previous errors.", ErrorClass::Transient);
        check("EXECABORT Transaction discarded because of: NOPERM this user has no", ErrorClass::Permission);
    }

    #[test]
    fn the_page_about_other_servers_says_what_this_code_does() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/other-servers.md")).unwrap();
        let (_, page) = page.split_once("\n## Redis protocol\n").unwrap();
        let (transient, page) = page.split_once(" are transient;").unwrap();
        let (resource, _) = page.split_once("are resource").unwrap();
        for (list, class, least) in [(transient, ErrorClass::Transient, 5), (resource, ErrorClass::Resource, 4)] {
            // Every other part is in backticks; the codes are the last sentence.
            let sentence = list.rsplit(". ").next().unwrap_or(list).rsplit(".\n").next().unwrap();
            let codes: Vec<&str> = sentence.split('`').skip(1).step_by(2).collect();
            assert!(codes.len() >= least, "{codes:?}");
            for code in codes {
                assert_eq!(reply_error(&error(&format!("{code} x")), false).class(), class, "{code}");
                assert!(is_listed(code), "{code}");
            }
        }
    }

    #[test]
    fn what_may_quote_a_row_is_not_repeated() {
        let text = |line| reply_error(&error(line), false).to_string();
        let quoting =
            ["ERR unknown command 'x', with args beginning with: 'secret'", "NOPERM no access to key 'secret'"];
        for line in quoting.into_iter().chain(["secret", "OOM secret"]) {
            assert!(!text(line).contains("secret"), "{}", text(line));
        }
        assert!(text("ERR value is not an integer or out of range").contains("not an integer"));
        assert_eq!(reply_error(&error("OOM x"), false).code(), Some("OOM"));
    }

    #[test]
    fn a_script_that_failed_is_not_run_again() {
        let class = |line| reply_error(&error(line), true).class();
        assert_eq!(class("MYERR from the script"), ErrorClass::Row);
        assert_eq!(class("ERR user_script:1: bad"), ErrorClass::Row);
        assert_eq!(class("OOM command not allowed when used memory > 'maxmemory'. script: x"), ErrorClass::Resource);
        assert_eq!(class("LOADING x"), ErrorClass::Transient);
        assert_eq!(class("BUSY x"), ErrorClass::Transient);
    }
}
