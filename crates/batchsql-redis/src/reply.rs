//! Owns the parsing of replies: where a reply ends in the bytes of a server, and a fast path for the most
//! common replies.
//! Must not know connections or commands.

use std::io;
use std::ops::Range;

use redis::Value;

/// No reply is nested deeper.
const MOST_NESTED: usize = 64;

/// The start of the bytes.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    Incomplete,
    /// A reply, and its size in bytes.
    Value(Value, usize),
}

/// Reads the first reply, without its attributes.
///
/// # Errors
/// The bytes are no replies.
pub(crate) fn parse(bytes: &[u8]) -> io::Result<Parsed> {
    if let Some(rest) = bytes.strip_prefix(b"+OK\r\n") {
        return Ok(Parsed::Value(Value::Okay, bytes.len() - rest.len()));
    }
    if let Some(rest) = bytes.strip_prefix(b":")
        && let Some((number, length)) = small_number(rest)
    {
        return Ok(Parsed::Value(Value::Int(number), length + 1));
    }
    let mut lines = Vec::new();
    let Some(end) = end(bytes, 0, MOST_NESTED, &mut lines)? else { return Ok(Parsed::Incomplete) };
    let value = if lines.is_empty() {
        redis::parse_redis_value(&bytes[..end])
    } else {
        let mut bytes = bytes[..end].to_vec();
        for byte in lines.into_iter().flatten() {
            if !bytes[byte].is_ascii() {
                bytes[byte] = b'?';
            }
        }
        redis::parse_redis_value(&bytes)
    };
    value.map(|value| Parsed::Value(without_attributes(value), end)).map_err(|_| no_reply())
}

/// Attributes are metadata of a reply and do not affect whether it is an error.
fn without_attributes(value: Value) -> Value {
    match value {
        Value::Attribute { data, .. } => without_attributes(*data),
        Value::Array(parts) => Value::Array(parts.into_iter().map(without_attributes).collect()),
        value => value,
    }
}

/// A number without a sign in a line, and the bytes of the line.
fn small_number(bytes: &[u8]) -> Option<(i64, usize)> {
    let digits = bytes.iter().take(18).take_while(|byte| byte.is_ascii_digit()).count();
    let is_line = digits > 0 && bytes.get(digits..digits + 2) == Some(b"\r\n");
    let number = bytes[..digits].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    is_line.then_some((number, digits + 2))
}

/// Where the reply that begins at `start` ends; `None` if it is not complete. `strange` gets the lines that the
/// client cannot parse: errors and states repeat arguments of commands, cut at any byte, so they may not be valid
/// UTF-8.
fn end(all: &[u8], start: usize, depth: usize, strange: &mut Vec<Range<usize>>) -> io::Result<Option<usize>> {
    let bytes = &all[start..];
    let Some(kind) = bytes.first() else { return Ok(None) };
    if depth == 0 {
        return Err(no_reply());
    }
    let Some(line) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let after = start + line + 2;
    let parts = match kind {
        b'+' | b'-' => {
            if std::str::from_utf8(&bytes[1..line]).is_err() {
                strange.push(start + 1..start + line);
            }
            return Ok(Some(after));
        }
        b':' | b',' | b'#' | b'(' | b'_' => return Ok(Some(after)),
        b'$' | b'!' | b'=' | b'*' | b'~' | b'>' | b'%' | b'|' => {
            let text = std::str::from_utf8(&bytes[1..line]).map_err(|_| no_reply())?;
            match text.parse::<i64>().map_err(|_| no_reply())? {
                // A null reply.
                -1 => return Ok(Some(after)),
                size => usize::try_from(size).map_err(|_| no_reply())?,
            }
        }
        _ => return Err(no_reply()),
    };
    let parts = match kind {
        b'$' | b'!' | b'=' => {
            let end = after.checked_add(parts).and_then(|end| end.checked_add(2)).ok_or_else(no_reply)?;
            return Ok((all.len() >= end).then_some(end));
        }
        b'%' => parts.checked_mul(2),
        // Attributes, and the reply that they belong to.
        b'|' => parts.checked_mul(2).and_then(|parts| parts.checked_add(1)),
        _ => Some(parts),
    };
    let mut next = after;
    for _ in 0..parts.ok_or_else(no_reply)? {
        match end(all, next, depth - 1, strange)? {
            Some(end) => next = end,
            None => return Ok(None),
        }
    }
    Ok(Some(next))
}

/// Without the bytes, which may be values.
fn no_reply() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the server does not answer like redis")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_those_that_the_client_reads() {
        for reply in [
            "+OK\r\n",
            "+QUEUED\r\n",
            ":1\r\n",
            ":-9223372036854775808\r\n",
            ":9223372036854775807\r\n",
            "-ERR wrong\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "$6\r\na\r\nb\r\n\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*3\r\n:1\r\n$1\r\na\r\n*1\r\n-ERR x\r\n",
            "_\r\n",
            ",1.5\r\n",
            "#t\r\n",
            "(12345678901234567890\r\n",
            "!5\r\nERR x\r\n",
            "=7\r\ntxt:abc\r\n",
            "%1\r\n+a\r\n:1\r\n",
            "~2\r\n:1\r\n:2\r\n",
        ] {
            let expected = redis::parse_redis_value(reply.as_bytes()).unwrap();
            let more = format!("{reply}:7\r\n");
            assert_eq!(parse(more.as_bytes()).unwrap(), Parsed::Value(expected, reply.len()), "{reply:?}");
            for end in 0..reply.len() {
                assert_eq!(parse(&reply.as_bytes()[..end]).unwrap(), Parsed::Incomplete, "{reply:?} {end}");
            }
        }
    }

    #[test]
    fn lines_that_are_no_utf_8_are_read_and_values_stay_as_they_are() {
        let check = |reply: &[u8], expected: Value| {
            assert_eq!(parse(reply).unwrap(), Parsed::Value(expected, reply.len()), "{reply:?}");
            assert_eq!(parse(&reply[..reply.len() - 1]).unwrap(), Parsed::Incomplete, "{reply:?}");
        };
        let error = redis::parse_redis_value(b"-ERR unknown command 'a??'\r\n").unwrap();
        check(b"-ERR unknown command 'a\xc3\xff'\r\n", error.clone());
        check(b"+a\xff\r\n", Value::SimpleString("a?".into()));
        check(
            b"*3\r\n$2\r\n\xff\xfe\r\n*1\r\n-ERR unknown command 'a\xc3\xff'\r\n+\xc3\xa9\r\n",
            Value::Array(vec![
                Value::BulkString(vec![0xff, 0xfe]),
                Value::Array(vec![error]),
                Value::SimpleString("\u{e9}".into()),
            ]),
        );
    }

    #[test]
    fn attributes_are_not_part_of_a_reply() {
        let check = |reply: &str, expected: Value| {
            assert_eq!(parse(reply.as_bytes()).unwrap(), Parsed::Value(expected, reply.len()), "{reply:?}");
            for end in 0..reply.len() {
                assert_eq!(parse(&reply.as_bytes()[..end]).unwrap(), Parsed::Incomplete, "{reply:?} {end}");
            }
        };
        let error = redis::parse_redis_value(b"-OOM x\r\n").unwrap();
        check("|1\r\n+a\r\n:1\r\n:5\r\n", Value::Int(5));
        check("|1\r\n+a\r\n:1\r\n-OOM x\r\n", error.clone());
        check("*1\r\n|1\r\n+a\r\n:1\r\n|1\r\n+b\r\n:1\r\n-OOM x\r\n", Value::Array(vec![error]));
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        let deep = "*1\r\n".repeat(100_000);
        for bytes in [
            "HTTP/1.1 400\r\n",
            "$x\r\n",
            "$-7\r\n",
            "*99999999999999999999\r\n",
            "%9223372036854775807\r\n:1\r\n",
            &deep,
        ] {
            match parse(bytes.as_bytes()) {
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
                Ok(parsed) => assert_eq!(parsed, Parsed::Incomplete, "{bytes:.20}"),
            }
        }
        assert!(parse(deep.as_bytes()).is_err());
    }
}
