//! Owns the bytes and headers of a message: rows of one table, who published them, and what was before them.
//! Must not know connections.
//!
//! A message has the schema of its rows, so that a reader needs nothing but the message. Its header says which message of the
//! subject came before it, which the server has checked when it stored the message. So a reader notices a missing message,
//! although other subjects have numbers of the same stream.

use std::sync::Arc;

use async_nats::HeaderMap;
use batchsql_core::StopReason;
use batchsql_feed::block::MAX_ROWS;
use bytes::Bytes;

use crate::token::{escape, hash_text, unescape};

/// The version of the format.
const FORMAT: u32 = 1;

const FORMAT_HEADER: &str = "BatchSQL-Format";
const ROWS: &str = "BatchSQL-Rows";
const SCHEMA: &str = "BatchSQL-Schema";
const PUBLISHER: &str = "BatchSQL-Publisher";
const NUMBER: &str = "BatchSQL-Number";
const AFTER: &str = "BatchSQL-After";
const SOURCE: &str = "BatchSQL-Source";
const OWNER: &str = "BatchSQL-Owner";
const POSITION: &str = "BatchSQL-Position";

/// What the header of a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Zero: the message only moves or claims a position.
    pub(crate) rows: u32,
    /// Of the process that published it.
    pub(crate) publisher: String,
    /// Counts the messages of the publisher.
    pub(crate) number: u64,
    /// The sequence of the message before it in its subject; 0 if there was none.
    pub(crate) after: u64,
    /// `None`: published without a position.
    pub(crate) position: Option<SourcePosition>,
}

/// How far the source of a publisher was with this message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourcePosition {
    /// The source and its incarnation.
    pub(crate) source: (String, String),
    /// Who has claimed it.
    pub(crate) owner: String,
    /// The last row of the source that is published.
    pub(crate) sequence: i64,
}

/// Rows of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) schema: Arc<[u8]>,
    pub(crate) rows: Vec<u8>,
}

/// A message that is not one of ours, or that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// What is wrong with it.
    pub(crate) why: String,
    /// It is one of ours, and another program or another setting can write its rows: the partition stops.
    pub(crate) stop: Option<StopReason>,
}

impl Foreign {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), stop: None }
    }

    pub(crate) fn without_headers() -> Self {
        Self::of_others("it has no headers")
    }

    /// Nothing says that a publisher of ours has made it.
    fn of_others(what: &str) -> Self {
        Self::new(format!(
            "{what}, so no publisher of BatchSQL has published it, and this worker reads no other messages; JSON is read with \
             `format = \"json\"` of the source (WorkerOptions::format), or send the rows over HTTP to a `batchsql run` with [publish]"
        ))
    }

    pub(crate) fn stop(kind: StopReason, why: impl Into<String>) -> Self {
        Self { why: why.into(), stop: Some(kind) }
    }
}

/// Names and values of headers.
type Lines = Vec<(&'static str, String)>;

impl Header {
    /// The header lines, with the hash of a schema.
    pub(crate) fn lines(&self, schema: &[u8]) -> Lines {
        let mut lines = vec![
            (FORMAT_HEADER, FORMAT.to_string()),
            (ROWS, self.rows.to_string()),
            (PUBLISHER, self.publisher.clone()),
            (NUMBER, self.number.to_string()),
            (AFTER, self.after.to_string()),
        ];
        if self.rows > 0 {
            lines.push((SCHEMA, hash_text(schema)));
        }
        if let Some(SourcePosition { source: (name, incarnation), owner, sequence }) = &self.position {
            let (mut source, mut of) = (String::new(), String::new());
            escape(&mut source, name);
            source.push('/');
            escape(&mut source, incarnation);
            escape(&mut of, owner);
            lines.extend([(SOURCE, source), (OWNER, of), (POSITION, sequence.to_string())]);
        }
        lines
    }

    /// Whether a message says that a publisher of ours has made it.
    pub(crate) fn is_in(headers: Option<&HeaderMap>) -> bool {
        headers.is_some_and(|headers| headers.get(FORMAT_HEADER).is_some())
    }

    /// Reads the header of a message.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Foreign> {
        let text = |name: &str| headers.get(name).map(|value| value.as_str());
        let number = |name: &str| {
            let value = text(name).ok_or_else(|| Foreign::new(format!("it has no header {name}")))?;
            value.parse::<u64>().map_err(|_| Foreign::new(format!("its header {name} is not a number")))
        };
        if text(FORMAT_HEADER).is_none() {
            return Err(Foreign::of_others(&format!("it has no header {FORMAT_HEADER}")));
        }
        match number(FORMAT_HEADER)? {
            0 => return Err(Foreign::new(format!("its header {FORMAT_HEADER} is 0"))),
            format if format == u64::from(FORMAT) => {}
            newer => {
                let why = format!("it has format {newer}, which a newer version has written; update the program");
                return Err(Foreign::stop(StopReason::Unreadable, why));
            }
        }
        let rows = u32::try_from(number(ROWS)?).ok().filter(|rows| *rows as usize <= MAX_ROWS);
        let rows = rows.ok_or_else(|| Foreign::new(format!("it has more than {MAX_ROWS} rows")))?;
        let position = match (text(SOURCE), text(OWNER), text(POSITION)) {
            (None, None, None) => None,
            (Some(source), Some(owner), Some(sequence)) => {
                let read = || {
                    let (name, incarnation) = source.split_once('/')?;
                    let source = (unescape(name)?, unescape(incarnation)?);
                    Some(SourcePosition { source, owner: unescape(owner)?, sequence: sequence.parse().ok()? })
                };
                Some(read().ok_or_else(|| Foreign::new("its position cannot be read"))?)
            }
            _ => return Err(Foreign::new("its position has parts only")),
        };
        let publisher = text(PUBLISHER).ok_or_else(|| Foreign::new(format!("it has no header {PUBLISHER}")))?;
        Ok(Self { rows, publisher: publisher.to_owned(), number: number(NUMBER)?, after: number(AFTER)?, position })
    }

    /// Whether it is the same message.
    pub(crate) fn is(&self, publisher: &str, number: u64) -> bool {
        self.publisher == publisher && self.number == number
    }
}

/// The payload of a message with rows: length of the schema with 4 bytes, schema, rows.
pub(crate) fn payload(schema: &[u8], rows: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(4 + schema.len() + rows.len());
    out.extend_from_slice(&(schema.len() as u32).to_le_bytes());
    out.extend_from_slice(schema);
    out.extend_from_slice(rows);
    out.into()
}

/// The reverse, with the hash of the header checked.
pub(crate) fn body(headers: &HeaderMap, payload: &[u8]) -> Result<Body, Foreign> {
    let too_short = || Foreign::new("its payload is too short");
    let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(too_short)?;
    let (schema, rows) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(too_short)?;
    if headers.get(SCHEMA).map(|value| value.as_str()) != Some(&hash_text(schema)) {
        return Err(Foreign::new(format!("its schema is not that of its header {SCHEMA}")));
    }
    Ok(Body { schema: schema.into(), rows: rows.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let source = ("my log \r\n".to_owned(), "id/1".to_owned());
        let position = Some(SourcePosition { source, owner: "me, myself".to_owned(), sequence: -1 });
        Header { rows: 3, publisher: "p1".to_owned(), number: 9, after: 41, position }
    }

    fn map(lines: &[(&'static str, String)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        lines.iter().for_each(|(name, value)| headers.insert(*name, value.as_str()));
        headers
    }

    #[test]
    fn headers_are_read_as_they_were_written() {
        let with = header();
        let lines = with.lines(b"schema");
        assert!(lines.iter().all(|(_, value)| value.is_ascii() && !value.contains(['\r', '\n'])), "{lines:?}");
        assert_eq!(Header::read(&map(&lines)), Ok(with.clone()));
        let without = Header { rows: 0, position: None, ..with };
        assert_eq!(Header::read(&map(&without.lines(b""))), Ok(without));
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let headers = map(&header().lines(b"schema"));
        let bytes = payload(b"schema", b"rows");
        assert_eq!(body(&headers, &bytes), Ok(Body { schema: (*b"schema").into(), rows: b"rows".to_vec() }));
    }

    #[test]
    fn messages_of_others_are_told_apart() {
        let check = |change: &dyn Fn(&mut Lines), word: &str| {
            let mut lines = header().lines(b"schema");
            change(&mut lines);
            let Foreign { why, .. } = Header::read(&map(&lines)).unwrap_err();
            assert!(why.contains(word), "{why}");
        };
        check(&Lines::clear, "no header BatchSQL-Format");
        check(&|lines| lines[0].1 = "2".into(), "newer version");
        check(&|lines| lines[0].1 = "0".into(), "is 0");
        check(&|lines| lines[1].1 = "-1".into(), "not a number");
        check(&|lines| lines[1].1 = "65537".into(), "65536 rows");
        check(&|lines| drop(lines.remove(2)), "BatchSQL-Publisher");
        check(&|lines| drop(lines.pop()), "parts only");
        check(&|lines| lines.last_mut().unwrap().1 = "x".into(), "cannot be read");
    }

    #[test]
    fn damaged_payloads_are_refused() {
        let headers = map(&header().lines(b"schema"));
        for bytes in [&b""[..], b"\x06\0\0", b"\x06\0\0\0sch", b"\x06\0\0\0schemarows"] {
            let found = body(&headers, bytes);
            assert_eq!(found.is_ok(), bytes.ends_with(b"schemarows"), "{bytes:?}: {found:?}");
        }
        assert!(body(&headers, &payload(b"other", b"rows")).is_err());
    }
}
