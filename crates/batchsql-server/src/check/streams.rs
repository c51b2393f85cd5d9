//! Owns what a check finds about NATS: the servers, the streams, and whether the positions in the database are of them.
//! Must not know how findings are shown.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::DiscardPolicy;
use batchsql::nats::StreamCheck;
use batchsql::{BatchSql, StoredPosition};
use bytesize::ByteSize;
use tokio::time::timeout;

use crate::check::finding::{Finding, Status};
use crate::config::nats_options;
use crate::config::nats_sections::{Guarantee, Stream};
use crate::config::sections::Rule;
use crate::config::settings::{JetStream, Nats, Publish, Settings, SourceKind};
use crate::nats::{connect, stream};
use crate::table::target::table_name;

/// For an answer. A check does not wait for what is unreachable.
const LIMIT: Duration = Duration::from_secs(10);

/// The first version with everything that a worker uses.
const OLDEST: (u32, u32) = (2, 11);

/// Positions of one message; `FORMAT.md` of `batchsql-nats` has the numbers.
const ROWS_OF_A_MESSAGE: i64 = 1 << 20;

/// The stream of `[publish]`.
pub(super) async fn of_publish(publish: &Publish) -> Vec<Finding> {
    let (mut findings, context) = server(&publish.nats).await;
    if let Some(context) = context {
        one_stream(&context, &publish.stream, &mut findings).await;
    }
    findings
}

/// The streams of sources. `db` is for their positions; `None` if the database cannot be asked.
pub(super) async fn of_sources(settings: &Settings, db: Option<&BatchSql>) -> Vec<Finding> {
    let streams = settings.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::JetStream(stream) => Some(&**stream),
        _ => None,
    });
    let streams: Vec<&JetStream> = streams.collect();
    // They have the section [nats] in common.
    let Some(first) = streams.first() else { return Vec::new() };
    let (mut findings, context) = server(&first.nats).await;
    findings.extend(streams.iter().flat_map(|source| unguarded(settings, source)));
    let Some(context) = context else { return findings };
    for source in streams {
        let Some(checked) = one_stream(&context, &source.stream, &mut findings).await else { continue };
        unread(settings, &context, &source.stream, &mut findings).await;
        if source.guarantee == Guarantee::ExactlyOnce
            && let Some(db) = db
        {
            let end = end(&context, &source.stream.name);
            findings.push(positions(source, &checked, db.positions(&source.source), end).await);
        }
    }
    findings
}

/// Tables of a source that several workers may double or put out of order.
fn unguarded(settings: &Settings, source: &JetStream) -> Vec<Finding> {
    if source.guarantee != Guarantee::AtLeastOnce {
        return Vec::new();
    }
    let tables = source.tables.iter().filter_map(|name| settings.table(name));
    let unguarded = tables.filter_map(|table| {
        let why = why_unguarded(table.rule, table.only_if_newer.as_deref())?;
        Some(Finding::new("source", format!("{}, table {}", source.source, table.name.get_ref()), Status::Warning, why))
    });
    unguarded.collect()
}

/// What several workers may do to rows that are written at least once with this rule.
fn why_unguarded(rule: Rule, only_if_newer: Option<&str>) -> Option<&'static str> {
    match rule {
        Rule::Insert => Some(
            "at least once, a message that is delivered again doubles rows of a plain insert; use a rule with a key, or the \
             guarantee exactly_once",
        ),
        Rule::Ignore => None,
        _ if only_if_newer.is_some() => None,
        Rule::Update | Rule::Replace | Rule::UpdateOnly | Rule::Delete => Some(
            "at least once, a late write of a worker that was stopped may overwrite a newer row of another worker; set \
             only_if_newer, use the guarantee exactly_once, or run one worker",
        ),
    }
}

async fn server(nats: &Nats) -> (Vec<Finding>, Option<Context>) {
    let hosts = connect::hosts(nats);
    match timeout(LIMIT, connect::connect(nats)).await {
        Ok(Ok(context)) => {
            let version = context.client().server_info().version;
            let is_old = numbers(&version).is_some_and(|version| version < OLDEST);
            let finding = if is_old {
                let detail = format!("version {version} is too old; use 2.11 or later");
                Finding::new("nats", hosts, Status::Failed, detail)
            } else {
                let detail = format!("it can be reached, and accepts the login; version {version}");
                Finding::new("nats", hosts, Status::Ok, detail)
            };
            (vec![finding], Some(context))
        }
        Ok(Err(error)) if error.is_final => (vec![Finding::new("nats", hosts, Status::Failed, error.text)], None),
        Ok(Err(error)) => (vec![Finding::unavailable("nats", hosts, error.text)], None),
        Err(_) => (vec![Finding::unavailable("nats", hosts, format!("no answer within {LIMIT:?}"))], None),
    }
}

/// The first two numbers of a version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A stream as it is; `None` if it cannot be used now.
struct Checked {
    incarnation: String,
}

async fn one_stream(context: &Context, stream: &Stream, findings: &mut Vec<Finding>) -> Option<Checked> {
    let (check, name) = ("stream", &stream.name);
    let checked = nats_options::stream(stream).check_existing(context).await;
    let StreamCheck { incarnation, max_message, warnings, .. } = match checked {
        Ok(checked) => checked,
        Err(error) => {
            let text = stream::refused(stream, &error);
            findings.push(match &stream.create {
                _ if error.is_away() => Finding::unavailable(check, name, text),
                Some(create) if error.is_missing() => {
                    let detail = format!("it is missing; `run` makes it with {} replicas", create.replicas);
                    Finding::new(check, name, Status::Ok, detail)
                }
                _ => Finding::new(check, name, Status::Failed, text),
            });
            return None;
        }
    };
    let info = match context.get_stream(name).await {
        Ok(found) => found.cached_info().clone(),
        Err(error) => {
            findings.push(Finding::unavailable(check, name, format!("the server does not show it: {error}")));
            return None;
        }
    };
    let config = &info.config;
    let limit = u64::try_from(config.max_bytes).ok().filter(|bytes| *bytes > 0);
    let limit = limit.map_or_else(|| "no limit of its own".to_owned(), |bytes| format!("at most {}", ByteSize(bytes)));
    let discard = if config.discard == DiscardPolicy::New { "new" } else { "old" };
    let (messages, bytes) = (info.state.messages, ByteSize(info.state.bytes));
    let detail = format!(
        "{} partitions, {} replicas, discard {discard}, {limit}; {messages} messages in {bytes}; a message may have {}",
        stream.partitions,
        config.num_replicas,
        ByteSize(max_message as u64)
    );
    findings.push(Finding::new(check, name, Status::Ok, detail));
    findings.extend(warnings.into_iter().map(|warning| Finding::new(check, name, Status::Warning, warning)));
    Some(Checked { incarnation })
}

/// Tables that the stream has and no source writes, and messages of no partition: their rows stay there.
async fn unread(settings: &Settings, context: &Context, stream: &Stream, findings: &mut Vec<Finding>) {
    let written = written(settings, &stream.name);
    let found = [stream::unread(context, stream, &written).await, stream::stray(context, stream, &written).await];
    findings.extend(found.into_iter().filter_map(|found| match found {
        Ok(text) => Some(Finding::new("stream", &stream.name, Status::Warning, text?)),
        Err(error) => Some(Finding::unavailable("stream", &stream.name, error.to_string())),
    }));
}

/// The tables, by their names in the database, that sources of this stream write.
fn written(settings: &Settings, stream: &str) -> BTreeSet<String> {
    let sources = settings.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::JetStream(source) if source.stream.name == stream => Some(&source.tables),
        _ => None,
    });
    let tables = sources.flatten().filter_map(|name| settings.table(name));
    tables.map(|table| table_name(table).to_string()).collect()
}

/// The number of the last message of a stream.
async fn end(context: &Context, name: &str) -> Result<u64, String> {
    let found = context.get_stream(name).await;
    let found = found.map_err(|error| format!("the server does not show the stream {name}: {error}"))?;
    Ok(found.cached_info().state.last_sequence)
}

/// The end of the stream is asked for when the positions are known: workers write meanwhile, and the positions of now would be
/// behind an end of before.
async fn positions<E: fmt::Display>(
    source: &JetStream,
    stream: &Checked,
    stored: impl Future<Output = Result<Vec<StoredPosition>, E>>,
    end: impl Future<Output = Result<u64, String>>,
) -> Finding {
    let (check, name) = ("positions", &source.source);
    let stored = match stored.await {
        Ok(stored) => stored,
        Err(error) => return Finding::new(check, name, Status::Failed, error.to_string()),
    };
    match end.await {
        Ok(end) => {
            let (status, detail) = fit(&stored, source.stream.partitions, stream, end);
            Finding::new(check, name, status, detail)
        }
        Err(text) => Finding::unavailable(check, name, text),
    }
}

/// Whether the positions are of this stream.
fn fit(stored: &[StoredPosition], partitions: u32, stream: &Checked, end: u64) -> (Status, String) {
    let stored: Vec<&StoredPosition> = stored.iter().filter(|stored| !stored.key.is_seat()).collect();
    let of_stream: Vec<&&StoredPosition> =
        stored.iter().filter(|stored| stored.key.incarnation == stream.incarnation).collect();
    let message = |stored: &&&StoredPosition| u64::try_from(stored.position.sequence / ROWS_OF_A_MESSAGE).unwrap_or(0);
    let furthest = of_stream.iter().map(message).max().unwrap_or(0);
    if furthest > end {
        let detail = format!(
            "message {furthest} is written, but the stream ends at {end}: it was restored from a backup, or a server has lost \
             what it had not synced; make a new stream"
        );
        return (Status::Failed, detail);
    }
    if let Some(other) = of_stream.iter().find(|stored| stored.key.partition >= partitions) {
        let detail = format!(
            "there is a position of partition {}, and the stream has {partitions} partitions; make a new stream",
            other.key.partition
        );
        return (Status::Failed, detail);
    }
    if of_stream.is_empty() && !stored.is_empty() {
        let detail =
            "those in the database are of another stream of this name; the worker begins with the first message";
        return (Status::Warning, detail.to_owned());
    }
    let owners: BTreeSet<&str> = of_stream.iter().filter_map(|stored| stored.holder()).collect();
    let detail =
        format!("{} partitions have one that fits the stream, {} workers hold leases", of_stream.len(), owners.len());
    (Status::Ok, detail)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::PathBuf;

    use batchsql::{PartitionKey, Position};

    use super::*;
    use crate::config::nats_sections::{KeepFor, Messages};
    use crate::config::settings::Login;

    fn at(incarnation: &str, partition: u32, message: i64) -> StoredPosition {
        let position = Position { id: 1, epoch: 1, sequence: message * ROWS_OF_A_MESSAGE + 3 };
        StoredPosition::new(PartitionKey::new("orders", incarnation, "\"orders\"", partition), position)
    }

    #[test]
    fn rules_without_a_guard_are_named() {
        let part = |rule, version| why_unguarded(rule, version).map_or("", |text| text);
        assert!(part(Rule::Insert, None).contains("plain insert"));
        assert_eq!((part(Rule::Ignore, None), part(Rule::Update, Some("version"))), ("", ""));
        for rule in [Rule::Update, Rule::Replace, Rule::UpdateOnly, Rule::Delete] {
            assert!(part(rule, None).contains("set only_if_newer"), "{rule:?}");
        }
    }

    #[test]
    fn versions_are_compared() {
        assert!(numbers("2.9.10").is_some_and(|version| version < OLDEST));
        assert!(numbers("2.11.0").is_some_and(|version| version >= OLDEST));
        assert_eq!(numbers("dev"), None);
    }

    #[test]
    fn positions_are_compared_with_the_stream() {
        let stream = Checked { incarnation: "7".to_owned() };
        let check = |stored: &[StoredPosition], status: Status, part: &str| {
            let found = fit(stored, 8, &stream, 50);
            assert!(found.0 == status && found.1.contains(part), "{found:?}");
        };
        check(&[], Status::Ok, "0 partitions");
        check(&[at("7", 0, 50), at("7", 7, 1), at("6", 0, 90)], Status::Ok, "2 partitions");
        check(&[at("7", 0, 51)], Status::Failed, "message 51 is written, but the stream ends at 50");
        check(&[at("7", 8, 1)], Status::Failed, "partition 8");
        check(&[at("6", 0, 90)], Status::Warning, "another stream of this name");
    }

    /// Message 51 is published and written during the check.
    #[tokio::test]
    async fn workers_may_write_during_a_check() {
        let source = source();
        let end = Cell::new(50);
        let stored = async {
            end.set(51);
            Ok::<_, String>(vec![at("7", 0, 51)])
        };
        let found = positions(&source, &Checked { incarnation: "7".to_owned() }, stored, async { Ok(end.get()) }).await;
        assert_eq!(found.status, Status::Ok, "{found:?}");
    }

    fn source() -> JetStream {
        let nats = Nats { servers: Vec::new(), login: Login::Open, tls: None };
        let stream = Stream { name: "orders".to_owned(), prefix: "ingest".to_owned(), partitions: 8, create: None };
        let second = Duration::from_secs(1);
        JetStream {
            nats,
            stream,
            tables: Vec::new(),
            guarantee: Guarantee::ExactlyOnce,
            source: "orders".to_owned(),
            worker: None,
            lease: second,
            ack_wait: second,
            keep_for: KeepFor::Forever,
            format: Messages::Blocks,
            decompressed: 1,
            dead_letters: PathBuf::new(),
        }
    }
}
