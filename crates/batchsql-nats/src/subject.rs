//! Owns the names of subjects: `<prefix>.<table>.<partition>`, and the table names in them.
//! Must not know messages or connections.
//!
//! A table is one token. Letters, digits, `_` and `-` stand for themselves; every other byte is `%` with two hexadecimal
//! digits. A namespace comes before the name, with `:` between them: `audit:events`. So every name has one token, every token
//! one name, and no name can reach another subject.

use batchsql_core::TableName;

use crate::token::{escape, hash_text, is_plain, unescape};

/// The prefix of subjects, unless another one is chosen.
pub(crate) const DEFAULT_PREFIX: &str = "ingest";

/// The longest name of a source in that of a consumer, which is that of a file.
const LONGEST_IN_CONSUMER: usize = 64;

/// The subjects of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subjects {
    prefix: String,
}

impl Subjects {
    pub(crate) fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The subject of a partition.
    pub(crate) fn of(&self, table: &TableName, partition: u32) -> String {
        format!("{}.{}.{partition}", self.prefix, token(table))
    }

    /// All subjects: what a stream must have.
    pub(crate) fn all(&self) -> String {
        format!("{}.*.*", self.prefix)
    }

    /// The table and the partition of a subject; `None` if it is none of these.
    pub(crate) fn parse(&self, subject: &str) -> Option<(TableName, u32)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let (table, partition) = rest.split_once('.')?;
        let number = partition.parse().ok()?;
        // `07` and `+7` are other subjects than `7`.
        (partition == format!("{number}")).then_some((table_of(table)?, number))
    }

    /// The table of a subject, whatever its partition is; `None` if it names none.
    pub(crate) fn table(&self, subject: &str) -> Option<TableName> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        table_of(rest.split_once('.')?.0)
    }
}

/// Whether a text can be the prefix of subjects: tokens with dots between them.
pub(crate) fn is_prefix(text: &str) -> bool {
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_plain);
    text.len() <= 100 && text.split('.').all(is_token)
}

/// A name for a durable consumer of a subject, which may have no dots and becomes a file name. Each subject has its own: after
/// `=` come capital letters and digits, `d` or `c`; and the source behind `=s`, or its hash behind `=h` if it is long. Workers of
/// two sources write the same messages to two databases, so each source has its own.
pub(crate) fn consumer_name(subject: &str, source: &str) -> String {
    let mut name = String::new();
    escape(&mut name, source);
    let (mark, name) =
        if name.len() <= LONGEST_IN_CONSUMER { ("=s", name) } else { ("=h", hash_text(source.as_bytes())) };
    format!("{subject}{mark}{name}").replace('%', "=").replace('.', "=d").replace(':', "=c")
}

fn token(table: &TableName) -> String {
    let mut out = String::new();
    if let Some(namespace) = table.namespace() {
        escape(&mut out, namespace);
        out.push(':');
    }
    escape(&mut out, table.name());
    out
}

fn table_of(token: &str) -> Option<TableName> {
    let part = |text: &str| unescape(text).filter(|name| !name.is_empty());
    match token.split_once(':') {
        Some((namespace, name)) => Some(TableName::qualified(part(namespace)?, part(name)?)),
        None => Some(TableName::new(part(token)?)),
    }
}

/// The table of a quoted name: `"events"`, `"audit"."events"`, with quotes in names written twice. A text without quotes is a
/// name as it is.
pub(crate) fn table_of_quoted(text: &str) -> TableName {
    let parts = quoted_parts(text);
    match parts.as_deref() {
        Some([name]) => TableName::new(name.as_str()),
        Some([namespace, name]) => TableName::qualified(namespace.as_str(), name.as_str()),
        _ => TableName::new(text),
    }
}

fn quoted_parts(text: &str) -> Option<Vec<String>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        rest = rest.strip_prefix('"')?;
        let mut part = String::new();
        loop {
            let end = rest.find('"')?;
            part.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(after) => {
                    part.push('"');
                    rest = after;
                }
                None => break,
            }
        }
        parts.push(part);
        if rest.is_empty() {
            return Some(parts);
        }
        rest = rest.strip_prefix('.')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of `FORMAT.md`.
    #[test]
    fn each_name_has_its_own_subject() {
        let subjects = Subjects::new("ingest");
        let check = |table: TableName, expected: &str| {
            let subject = subjects.of(&table, 7);
            assert_eq!(subject, expected);
            assert_eq!(subjects.parse(&subject), Some((table, 7)));
        };
        check(TableName::new("events"), "ingest.events.7");
        check(TableName::new("audit.events"), "ingest.audit%2Eevents.7");
        check(TableName::qualified("audit", "events"), "ingest.audit:events.7");
        check(TableName::new("audit:events"), "ingest.audit%3Aevents.7");
        check(TableName::new("a b*>%"), "ingest.a%20b%2A%3E%25.7");
        check(TableName::new("$SYS"), "ingest.%24SYS.7");
        check(TableName::new("größe"), "ingest.gr%C3%B6%C3%9Fe.7");
    }

    #[test]
    fn other_subjects_are_not_taken_for_partitions() {
        let subjects = Subjects::new("a.b");
        assert_eq!(subjects.parse("a.b.t.0"), Some((TableName::new("t"), 0)));
        for other in [
            "a.b",
            "a.b.t",
            "a.b.t.x",
            "a.b.t.07",
            "a.b.t.+7",
            "a.b.t.1.2",
            "a.c.t.1",
            "a.b.t%2e.1",
            "a.b.%41.1",
            "a.b..1",
        ] {
            assert_eq!(subjects.parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_table_of_a_subject_needs_no_partition() {
        let subjects = Subjects::new("a.b");
        for (subject, table) in
            [("a.b.t.07", Some("t")), ("a.b.t.x", Some("t")), ("a.b.t%2e.1", None), ("a.c.t.1", None)]
        {
            assert_eq!(subjects.table(subject), table.map(TableName::new), "{subject}");
        }
    }

    #[test]
    fn consumers_have_names_without_dots() {
        let of = |source: &str| consumer_name("ingest.a%2Eb:c-d.7", source);
        assert_eq!(of("my rows"), "ingest=da=2Eb=cc-d=d7=smy=20rows");
        assert_eq!(of(&"ö".repeat(100)), "ingest=da=2Eb=cc-d=d7=h98ea4b876172abfd");
        assert_ne!(of(&"ö".repeat(100)), of(&"ö".repeat(99)));
    }

    #[test]
    fn prefixes_are_tokens() {
        for (text, expected) in
            [("ingest", true), ("a.b-c", true), ("", false), ("a..b", false), ("a.*", false), ("a b", false)]
        {
            assert_eq!(is_prefix(text), expected, "{text}");
        }
    }

    #[test]
    fn quoted_names_are_read() {
        let check = |text: &str, expected: TableName| {
            assert_eq!(table_of_quoted(text), expected, "{text}");
            assert_eq!(batchsql_feed::quoted_table(&expected), text);
        };
        check("\"events\"", TableName::new("events"));
        check("\"a\"\"b\"", TableName::new("a\"b"));
        check("\"audit\".\"ev.ents\"", TableName::qualified("audit", "ev.ents"));
        assert_eq!(table_of_quoted("events"), TableName::new("events"));
        assert_eq!(table_of_quoted("\"torn"), TableName::new("\"torn"));
    }
}
