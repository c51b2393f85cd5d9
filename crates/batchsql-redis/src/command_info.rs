//! Owns the properties of commands that the user chooses: which ones a pipeline of rows must not send, how
//! many arguments they take, where their key is.
//! Must not know rows.
//!
//! Source: <https://redis.io/docs/latest/commands/command/>.

use batchsql_core::{ErrorClass, SinkError};
use redis::Value;

/// Commands that change the state of their connection, that block, or that do not have exactly one reply: later
/// replies on the connection would be late, misinterpreted or missing.
const FORBIDDEN: [&str; 39] = [
    "ASKING",
    "AUTH",
    "BLMOVE",
    "BLMPOP",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BZMPOP",
    "BZPOPMAX",
    "BZPOPMIN",
    "CLIENT",
    "DEBUG",
    "DISCARD",
    "EXEC",
    "FAILOVER",
    "HELLO",
    "MONITOR",
    "MULTI",
    "PSUBSCRIBE",
    "PSYNC",
    "PUNSUBSCRIBE",
    "QUIT",
    "READONLY",
    "READWRITE",
    "REPLCONF",
    "RESET",
    "SELECT",
    "SHUTDOWN",
    "SSUBSCRIBE",
    "SUBSCRIBE",
    "SUNSUBSCRIBE",
    "SYNC",
    "UNSUBSCRIBE",
    "UNWATCH",
    "WAIT",
    "WAITAOF",
    "WATCH",
    "XREAD",
    "XREADGROUP",
];

/// Whether rows must not become this command. `next` is its first argument.
pub(crate) fn is_forbidden(word: &[u8], next: &[u8]) -> bool {
    let is = |word: &[u8], other: &str| word.eq_ignore_ascii_case(other.as_bytes());
    FORBIDDEN.iter().any(|forbidden| is(word, forbidden)) || is(word, "SCRIPT") && is(next, "DEBUG")
}

/// The position of the key of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyPosition {
    /// The argument with this number; the word is argument 0.
    Argument(usize),
    /// The command has no key.
    Nowhere,
    /// It depends on the other arguments.
    Depends,
}

/// Reads the reply of `COMMAND INFO word`, and checks that the command can be sent with this number of arguments
/// (words included): at least `fewest`, at most `most`.
pub(crate) fn check(reply: &Value, words: &[String], fewest: usize, most: usize) -> Result<KeyPosition, SinkError> {
    let word = words.join(" ");
    let problem = |text: String| Err(SinkError::new(ErrorClass::Schema, format!("the command {word:?} {text}")));
    let next = words.get(1).map_or("", String::as_str);
    if words.first().is_some_and(|word| is_forbidden(word.as_bytes(), next.as_bytes())) {
        return problem("blocks, or changes the connection; use one that reads or writes data".into());
    }
    let Some([_, Value::Int(arity), flags, Value::Int(first_key), ..]) = items(reply).first().map(items) else {
        return problem("is not known to the server; check its name, and the server's version and modules".into());
    };
    let has_flag = |name: &str| {
        items(flags).iter().any(|flag| match flag {
            Value::SimpleString(text) => text == name,
            Value::BulkString(text) => text == name.as_bytes(),
            _ => false,
        })
    };
    if has_flag("blocking") {
        return problem("blocks until there is data; use one that does not block".into());
    }
    let needed = usize::try_from(arity.unsigned_abs()).unwrap_or(usize::MAX);
    let fits = if *arity < 0 { most >= needed } else { (fewest..=most).contains(&needed) };
    if !fits {
        let exactly = if *arity < 0 { "at least " } else { "" };
        return problem(format!(
            "takes {exactly}{} arguments, but the rows have {}; change the columns of the schema",
            needed.saturating_sub(words.len()),
            most - words.len()
        ));
    }
    Ok(match usize::try_from(*first_key) {
        Ok(position) if position > 0 => KeyPosition::Argument(position),
        _ if words.len() > 1 => KeyPosition::Argument(words.len()),
        _ if has_flag("movablekeys") => KeyPosition::Depends,
        _ => KeyPosition::Nowhere,
    })
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(arity: i64, flags: &[&str], first_key: i64) -> Value {
        let flags = flags.iter().map(|flag| Value::SimpleString((*flag).to_owned())).collect();
        let command = vec![Value::Nil, Value::Int(arity), Value::Set(flags), Value::Int(first_key)];
        Value::Array(vec![Value::Array(command)])
    }

    #[test]
    fn what_the_server_says_of_a_command_is_checked() {
        let check = |reply, words: &str, fewest, most| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            super::check(&reply, &words, fewest, most).map_err(|error| error.to_string())
        };
        assert_eq!(check(info(3, &["write"], 1), "INCRBY", 3, 3), Ok(KeyPosition::Argument(1)));
        assert_eq!(check(info(-3, &["write"], 1), "DEL", 3, 9), Ok(KeyPosition::Argument(1)));
        assert_eq!(check(info(3, &["write"], 1), "X", 2, 4), Ok(KeyPosition::Argument(1)), "NULL may be left out");
        assert_eq!(check(info(-2, &[], 0), "XGROUP CREATE", 5, 5), Ok(KeyPosition::Argument(2)));
        assert_eq!(check(info(-3, &["movablekeys"], 0), "EVAL", 4, 4), Ok(KeyPosition::Depends));
        assert_eq!(check(info(1, &[], 0), "PING", 1, 1), Ok(KeyPosition::Nowhere));
        let part = |result: Result<KeyPosition, String>, part: &str| {
            let error = result.unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        part(check(Value::Array(vec![Value::Nil]), "NOSUCH", 2, 2), "\"NOSUCH\" is not known");
        part(check(info(3, &[], 1), "INCRBY", 4, 4), "takes 2 arguments, but the rows have 3");
        part(check(info(-4, &[], 1), "HSET", 3, 3), "takes at least 3 arguments, but the rows have 2");
        part(check(info(-3, &["blocking"], 1), "NEWPOP", 3, 3), "blocks until");
        part(check(info(-2, &[], 0), "SUBSCRIBE", 2, 2), "changes the connection");
    }

    #[test]
    fn commands_that_change_the_connection_are_forbidden_in_any_case() {
        for word in ["multi", "SUBSCRIBE", "Client", "WAITAOF", "XRead", "XREADGROUP"] {
            assert!(is_forbidden(word.as_bytes(), b"x"), "{word}");
        }
        assert!(is_forbidden(b"script", b"debug") && !is_forbidden(b"script", b"load"));
        assert!(!is_forbidden(b"SET", b"multi") && !is_forbidden(b"", b""));
    }
}
