//! Owns how messages that were set aside are published again: to which stream, with which id, and which of them are not.
//! Must not know how they come into their file.

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::io;
use std::path::Path;

use async_nats::header::{HeaderName, HeaderValue, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{HeaderMap, Subject};
use batchsql::{NotReplayed, ReplayMark};

use crate::coding::items::BYTE_ORDER_MARK;
use crate::config::read;
use crate::config::settings::{JetStream, Settings, SourceKind};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::nats::connect;
use crate::signals::Signals;
use crate::tools::foreign::{Letter, Letters};
use crate::tools::in_use;

/// After so many letters it is noted how far the file is, or after more of them if many have failed: the mark has each of these.
const NOTED: usize = 100;
/// The part of those that have failed.
const PART: usize = 16;
/// Reasons that are printed.
const SHOWN: usize = 20;
/// In the messages of publishers of this program, which name the message before them.
const OWN: &str = "BatchSQL-Format";
/// In the messages of a front that publishes exactly once.
const POSITION: &str = "BatchSQL-Position";
/// Those of NATS are about the message as it was published first.
const OF_NATS: &str = "nats-";

/// Publishes the letters of a file, in their order, each after the one before is stored.
///
/// # Errors
/// The configuration has no stream, NATS cannot be used, or the file or its mark cannot be used. What was published is noted.
pub(super) async fn run(path: &Path, config: &Path, delete: bool) -> Result<Exit, Failure> {
    let mut signals = Signals::new().map_err(Failure::unavailable)?;
    let settings = read::read(config)?;
    logging::start_quiet(&settings.log).map_err(Failure::mistake)?;
    let streams = streams(&settings, path)?;
    let context = connect::connect(&streams[0].nats).await.map_err(|error| Failure::unavailable(error.text))?;
    let unusable = |error: io::Error| Failure::unavailable(format!("{}: {error}", path.display()));
    let mark = ReplayMark::open(path, ReplayMark::path_of(path)).map_err(Failure::unavailable)?;
    let (published, fronts) = (HashSet::new(), HashMap::new());
    let mut replay = Replay { context, streams, mark, published, fronts, repeated: 0, left: Vec::new() };
    let published = tokio::select! {
        published = replay.all(path) => published,
        signal = signals.next() => Err(Failure::failed(format!("{signal}: stopped; run the command again to go on"))),
    };
    replay.mark.write().map_err(unusable)?;
    published?;
    let Replay { published, repeated, left, mark, .. } = replay;
    let again = if repeated == 0 { String::new() } else { format!(" ({repeated} more are the same ones)") };
    println!("{}: {} published{again}, {} left", path.display(), published.len(), left.len());
    for (position, reason) in left.iter().take(SHOWN) {
        println!("  byte {position}: {reason}");
    }
    if !left.is_empty() {
        println!("those that are left are tried by the next replay of this file");
        return Ok(Exit::Failed);
    }
    if delete {
        mark.delete().map_err(unusable)?;
        println!("{} is deleted", path.display());
    }
    Ok(Exit::Done)
}

/// The streams that the configuration reads.
///
/// # Errors
/// There is none, or the file is one that `run` appends to.
fn streams(settings: &Settings, path: &Path) -> Result<Vec<JetStream>, Failure> {
    let streams = settings.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::JetStream(stream) => Some((**stream).clone()),
        SourceKind::Stdin { .. } | SourceKind::Files(_) => None,
    });
    let streams: Vec<JetStream> = streams.collect();
    if streams.is_empty() {
        let text = "the configuration reads no stream; use the one of the worker that has written the file";
        return Err(Failure::mistake(text));
    }
    for stream in &streams {
        let mut appended = stream.dead_letters.as_os_str().to_owned();
        appended.push(".foreign");
        in_use::refuse(path, Path::new(&appended))?;
    }
    Ok(streams)
}

struct Replay {
    context: Context,
    streams: Vec<JetStream>,
    mark: ReplayMark,
    /// The ids: a letter may be there twice.
    published: HashSet<String>,
    /// Whether a front publishes exactly once, by subject.
    fronts: HashMap<String, bool>,
    /// Letters with an id of these.
    repeated: usize,
    /// Where those begin that are not published, and why.
    left: Vec<(u64, String)>,
}

impl Replay {
    /// First those that were left before, then those behind the mark.
    async fn all(&mut self, path: &Path) -> Result<(), Failure> {
        let unusable = |error: io::Error| Failure::unavailable(format!("{}: {error}", path.display()));
        for position in self.mark.failed().collect::<Vec<_>>() {
            let again = Letters::open_at(path, position).map_err(unusable)?.next();
            match again.transpose().map_err(unusable)? {
                Some((begin, letter)) if begin == position => self.one(position, letter).await?,
                // An empty line.
                _ => self.mark.note(position, true),
            }
        }
        let mut letters = Letters::open_at(path, self.mark.position()).map_err(unusable)?;
        let mut left = letters_until_noted(&self.mark);
        while let Some(letter) = letters.next() {
            let (position, letter) = letter.map_err(unusable)?;
            self.one(position, letter).await?;
            self.mark.advance(letters.position()).map_err(unusable)?;
            left -= 1;
            if left == 0 {
                self.mark.write().map_err(unusable)?;
                left = letters_until_noted(&self.mark);
            }
        }
        // Empty lines are no letters.
        self.mark.advance(letters.position()).map_err(unusable)?;
        self.left.extend(letters.unfinished().map(|position| (position, NotReplayed::Unfinished.to_string())));
        Ok(())
    }

    /// Publishes a letter, or notes why not.
    ///
    /// # Errors
    /// NATS does not store it now.
    async fn one(&mut self, position: u64, letter: Result<Letter, String>) -> Result<(), Failure> {
        let message = letter.and_then(|letter| message(&self.streams, letter));
        let left = match message {
            Ok(Message { id, .. }) if self.published.contains(&id) => {
                self.repeated += 1;
                None
            }
            Ok(Message { stream, subject, .. }) if self.has_exact_front(&stream, &subject).await? => Some(format!(
                "a front with `exactly_once` publishes to {subject}, and would stop behind a message of others; send the rows of the \
                 letter to the front"
            )),
            Ok(Message { id, subject, headers, payload, .. }) => {
                let sent = self.context.publish_with_headers(subject.clone(), headers, payload.into()).await;
                let stored = match sent {
                    Ok(sent) => sent.await,
                    Err(error) => Err(error),
                };
                match stored {
                    Ok(_) => {
                        self.published.insert(id);
                        None
                    }
                    Err(error) if is_too_large(&error) => Some(format!(
                        "NATS takes no message that is so large with its headers: {error}; let the server or the stream take larger ones"
                    )),
                    Err(error) => {
                        return Err(Failure::unavailable(format!(
                            "no stream has stored a message of {subject}: {error}; run the command again"
                        )));
                    }
                }
            }
            Err(reason) => Some(reason),
        };
        self.mark.note(position, left.is_none());
        self.left.extend(left.map(|reason| (position, reason)));
        Ok(())
    }

    /// Whether the last message of the subject is of a front that publishes exactly once: it has the subject for itself.
    async fn has_exact_front(&mut self, stream: &str, subject: &str) -> Result<bool, Failure> {
        if let Some(is_exact) = self.fronts.get(subject) {
            return Ok(*is_exact);
        }
        let unusable = |error: &dyn std::error::Error| {
            Failure::unavailable(format!(
                "the last message of {subject} cannot be read: {error}; run the command again"
            ))
        };
        let stream = self.context.get_stream(stream).await.map_err(|error| unusable(&error))?;
        let is_exact = match stream.raw_message_builder().last_by_subject(subject).send().await {
            Ok(last) => last.headers.get(POSITION).is_some(),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => false,
            Err(error) => return Err(unusable(&error)),
        };
        self.fronts.insert(subject.to_owned(), is_exact);
        Ok(is_exact)
    }
}

/// After how many letters it is noted again how far the file is: the mark as a whole is written.
fn letters_until_noted(mark: &ReplayMark) -> usize {
    NOTED.max(mark.failed().count() / PART)
}

/// Whether the message is the reason, and not the server.
fn is_too_large(error: &PublishError) -> bool {
    let refused = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || refused.is_some_and(|refused| refused.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
}

/// What is published of a letter, to one of these streams.
///
/// # Errors
/// Why it is not published.
fn message(streams: &[JetStream], letter: Letter) -> Result<Message, String> {
    let mut payload = letter.payload()?;
    let Letter { id, subject, line, partly_written, headers: old, .. } = letter;
    let reads =
        |stream: &&JetStream| subject.strip_prefix(&*stream.stream.prefix).is_some_and(|rest| rest.starts_with('.'));
    let stream = streams.iter().find(reads);
    let stream = stream.ok_or_else(|| format!("no source of the configuration reads {subject}"))?;
    if partly_written {
        return Err("rows of this message are written, or are in letters before this one; correct the others, and publish these alone".to_owned());
    }
    if old.iter().any(|(name, _)| name.eq_ignore_ascii_case(OWN)) {
        return Err("a publisher of BatchSQL has made it, whose messages are not published by others".to_owned());
    }
    // A line or an element that is an array would be a message with rows. As an element of one it is no row again.
    if line.is_some() && payload.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&payload).trim_ascii_start().starts_with(b"[")
    {
        payload = [b"[", &payload[..], b"]"].concat();
    }
    // The client does not return what it refuses.
    if let Err(error) = Subject::validated(&subject) {
        return Err(format!("its `subject` cannot be published to: {error}; correct it"));
    }
    let mut headers = HeaderMap::new();
    for (number, (name, value)) in
        (1..).zip(&old).filter(|(_, (name, _))| !name.to_ascii_lowercase().starts_with(OF_NATS))
    {
        let refused =
            |error: String| format!("element {number} of its `headers` cannot be published: {error}; correct it");
        let parsed = name.parse::<HeaderName>().map_err(|error| refused(error.to_string()))?;
        if name.is_empty() {
            return Err(refused("it has no name".to_owned()));
        }
        headers.append(parsed, value.parse::<HeaderValue>().map_err(|error| refused(error.to_string()))?);
    }
    let stream = stream.stream.name.clone();
    headers.insert(NATS_EXPECTED_STREAM, stream.as_str());
    let message_id =
        id.parse::<HeaderValue>().map_err(|error| format!("its `id` cannot be a header: {error}; correct it"))?;
    headers.insert(NATS_MESSAGE_ID, message_id);
    Ok(Message { id, stream, subject, headers, payload })
}

/// What is published.
struct Message {
    id: String,
    /// Its name.
    stream: String,
    subject: String,
    headers: HeaderMap,
    payload: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written for a letter does not grow with their number, also if none of them is published.
    #[test]
    fn the_mark_is_written_in_proportion() {
        const LETTERS: u64 = 100_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        std::fs::write(&path, "").unwrap();
        let mut mark = ReplayMark::open(&path, ReplayMark::path_of(&path)).unwrap();
        let (mut written, mut left) = (0, letters_until_noted(&mark));
        assert_eq!(left, NOTED);
        for position in 0..LETTERS {
            mark.note(position, false);
            left -= 1;
            if left == 0 {
                written += position + 1;
                left = letters_until_noted(&mark);
            }
        }
        assert!(written < 20 * LETTERS, "{written}");
    }
}
