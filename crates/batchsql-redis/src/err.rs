//! Owns the meaning of the texts after `ERR`, which has no specific code.
//! Must not know commands or rows; the texts are compared and never included, because some quote arguments.
//!
//! Two lists: errors about the command itself, for which a retry gives the same result; and errors of proxies that
//! lost a server after they may have forwarded the command. Everything else is retried.

use batchsql_core::ErrorClass::{self, Row, Transient, Unknown};

/// Texts that quote nothing, with our messages.
const OF_VALUES: [(&str, &str); 12] = [
    (
        "value is not an integer or out of range",
        "the server refused the command: value is not an integer or out of range",
    ),
    ("value is not a valid float", "the server refused the command: value is not a valid float"),
    ("hash value is not an integer", "the server refused the command: hash value is not an integer"),
    ("hash value is not a float", "the server refused the command: hash value is not a float"),
    ("increment or decrement would overflow", "the server refused the command: increment or decrement would overflow"),
    (
        "increment would produce NaN or Infinity",
        "the server refused the command: increment would produce NaN or Infinity",
    ),
    ("resulting score is not a number (NaN)", "the server refused the command: resulting score is not a number (NaN)"),
    ("syntax error", "the server refused the command: syntax error"),
    ("no such key", "the server refused the command: no such key"),
    (
        "Invalid stream ID specified as stream command argument",
        "the server refused the command: Invalid stream ID specified as stream command argument",
    ),
    (
        "The ID specified in XADD must be greater than 0-0",
        "the server refused the command: The ID specified in XADD must be greater than 0-0",
    ),
    (
        "The ID specified in XADD is equal or smaller than the target stream top item",
        "the server refused the command: The ID specified in XADD is equal or smaller than the target stream top item",
    ),
];

/// Prefixes of errors for a command that will never be accepted, in lower case.
const OF_COMMANDS: [&str; 42] = [
    "unknown command",
    "unknown subcommand",
    "unknown option",
    "unknown",
    "wrong number of arguments",
    "invalid",
    "value is",
    "value must",
    "values must",
    "index out of range",
    "offset is out of range",
    "bit ",
    "string exceeds maximum allowed size",
    "min or max",
    "timeout is",
    "gt, lt",
    "xx and nx",
    "nx and xx",
    "numkeys",
    "number of keys",
    "at least",
    "source and destination objects are the same",
    "exec without multi",
    "multi calls can not be nested",
    "db index is out of range",
    "this instance has cluster support disabled",
    "user_script",
    "user_function",
    "error running script",
    "error compiling script",
    "bad",
    "unsupported",
    "command not allowed",
    "the bitfield",
    "syntax error",
    "the stream has exhausted the last possible id",
    "elements are too large to be stored",
    "decrement would overflow",
    "increment or decrement would overflow",
    "dump payload version or checksum are wrong",
    "the id specified in xsetid is smaller",
    // RedisTimeSeries.
    "tsdb:",
];

/// Prefixes of errors of proxies that may have forwarded the command (Twemproxy, Codis), in lower case.
const OF_PROXIES: [&str; 7] = [
    "connection timed out",
    "connection reset by peer",
    "broken pipe",
    "operation timed out",
    "handle response",
    "handle request",
    "backend conn",
];

/// The class and the message for the text after `ERR`.
pub(crate) fn meaning(text: &str) -> (ErrorClass, &'static str) {
    if let Some((_, shown)) = OF_VALUES.iter().find(|(known, _)| *known == text) {
        return (Row, shown);
    }
    let begins = |known: &&str| text.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known));
    if OF_COMMANDS.iter().any(begins) {
        (Row, "the server refused the command: an argument does not fit it")
    } else if OF_PROXIES.iter().any(begins) {
        (Unknown, "the proxy lost the server, so it is not known whether the command was executed")
    } else {
        (Transient, "the server refused the command with a message that is not known here")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_class() {
        let check = |text, expected| assert_eq!(meaning(text).0, expected, "{text}");
        check("value is not a valid float", Row);
        check("Unknown command 'x', with args beginning with: 'y'", Row);
        check("invalid expire time in 'setex' command", Row);
        check("syntax error, expected a number", Row);
        check("decrement would overflow", Row);
        check("Elements are too large to be stored", Row);
        check("DUMP payload version or checksum are wrong", Row);
        check("TSDB: the key does not exist", Row);
        check("Connection refused", Transient);
        check("Connection timed out", Unknown);
        check("handle response, backend conn reset", Unknown);
        check("slot is migrating", Transient);
        check("", Transient);
    }
}
