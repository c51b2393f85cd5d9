//! Owns publishing: each message is stored behind the last one of its subject that the publisher knows, or not at all.
//! Must not know tables or rows.
//!
//! The server compares `Nats-Expected-Last-Subject-Sequence`. So a message that is sent again after a lost answer is stored
//! once: either the first one was stored, and the second one does not fit any more, or the other way round. What the server
//! has says which one it was.
//!
//! ```text
//! the last message of the subject is 41
//! publish, after 41     the answer is lost
//! publish, after 41     wrong last sequence: the first message behind 41 is 57, and it is ours: it was stored
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{RawMessageError, RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, Error as ApiError, ErrorCode};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::message::{Header, SourcePosition};

/// How long a message is sent again whose answer was lost, before the caller hears that it is not known. Shorter than the
/// default of `statement_timeout`, 30 seconds.
const DOUBT: Duration = Duration::from_secs(20);
/// How long an answer is waited for. What is sent again is stored once.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// Before the next try behind a message of another publisher. Short: each waits for the others.
pub(crate) const PAUSE_BEHIND_OTHERS: Duration = Duration::from_millis(1);

/// Publishes to the subjects of one stream.
#[derive(Debug)]
pub(crate) struct Publisher {
    context: Context,
    stream: Stream<()>,
    name: String,
    /// Of this process.
    id: String,
    number: AtomicU64,
}

/// The end of one subject, as its publisher knows it.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// The sequence of the last message; `None` if it is not known.
    last: Option<u64>,
}

impl Tail {
    /// The last message has this sequence, or the server says otherwise.
    pub(crate) fn behind(last: u64) -> Self {
        Self { last: Some(last) }
    }

    /// A message was to be stored behind this one, and is not, unless it may be.
    fn not_stored_behind(&mut self, after: u64, may_be_stored: bool) {
        self.last = (!may_be_stored).then_some(after);
    }
}

/// A message to publish.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) rows: u32,
    pub(crate) schema: &'a [u8],
    pub(crate) payload: Bytes,
    pub(crate) position: Option<SourcePosition>,
}

/// What to do behind a message of another publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BehindOthers {
    Publish,
    /// Also if the last message that this publisher knows is not known any more: then another one may be behind it.
    GiveUp,
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotPublished {
    /// It is not known whether it is stored.
    Unknown(String),
    /// It is not stored: the server cannot be asked now.
    Unreachable(String),
    /// It is not stored: the stream is full.
    Full(String),
    /// It is not stored, and never will be, as it is.
    TooLarge,
    /// It is not stored: the server refuses it.
    Refused(String),
    /// It is not stored: another publisher has written to the subject.
    Overtaken,
}

/// The first message of a subject behind a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) sequence: u64,
    /// `None` if it is of another format.
    pub(crate) header: Option<Header>,
}

impl From<StreamMessage> for Found {
    fn from(message: StreamMessage) -> Self {
        Self { sequence: message.sequence, header: Header::read(&message.headers).ok() }
    }
}

impl Publisher {
    pub(crate) fn new(mut context: Context, stream: Stream<()>, name: &str) -> Self {
        context.set_timeout(ANSWER);
        let id = format!("{:032x}", fastrand::u128(..));
        Self { context, stream, name: name.to_owned(), id, number: AtomicU64::new(0) }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The last message of a subject.
    pub(crate) async fn last(&self, subject: &str) -> Result<Option<Found>, NotPublished> {
        found(self.stream.raw_message_builder().last_by_subject(subject).send().await)
    }

    async fn first_behind(&self, subject: &str, sequence: u64) -> Result<Option<Found>, NotPublished> {
        found(self.stream.raw_message_builder().sequence(sequence + 1).next_by_subject(subject).send().await)
    }

    /// Publishes one message, and returns its sequence.
    ///
    /// # Cancel safety
    /// The message may be stored or not. A message that is published later to the same subject is behind it.
    pub(crate) async fn publish(
        &self,
        subject: &str,
        tail: &mut Tail,
        out: &Outgoing<'_>,
        behind_others: BehindOthers,
    ) -> Result<u64, NotPublished> {
        let number = self.next_number();
        let give_up = Self::give_up();
        loop {
            let after = match tail.last {
                Some(last) => last,
                // Whatever is last now may be of a publisher that has claimed the subject since.
                None if behind_others == BehindOthers::GiveUp => {
                    return Err(NotPublished::Unknown("it is not known what became of the message before".to_owned()));
                }
                None => self.last(subject).await?.map_or(0, |found| found.sequence),
            };
            match self.publish_behind(subject, tail, out, after, number, give_up).await? {
                Some(sequence) => return Ok(sequence),
                None if behind_others == BehindOthers::GiveUp => return Err(NotPublished::Overtaken),
                None if Instant::now() >= give_up => {
                    return Err(NotPublished::Unreachable(
                        "other publishers write the subject all the time".to_owned(),
                    ));
                }
                None => sleep(PAUSE_BEHIND_OTHERS).await,
            }
        }
    }

    /// Publishes one message behind `after`, and not elsewhere. `None`: another publisher was faster.
    pub(crate) async fn publish_behind(
        &self,
        subject: &str,
        tail: &mut Tail,
        out: &Outgoing<'_>,
        after: u64,
        number: u64,
        give_up: Instant,
    ) -> Result<Option<u64>, NotPublished> {
        // Until the answer is there: this future may be dropped.
        tail.last = None;
        let mut may_be_stored = false;
        loop {
            let error = match self.send(subject, out, after, number).await {
                Ok(sequence) => {
                    tail.last = Some(sequence);
                    return Ok(Some(sequence));
                }
                Err(error) => error,
            };
            match reason(&error) {
                Reason::WrongLast => {
                    let first = match self.until_known(give_up, may_be_stored, subject, after).await {
                        Ok(first) => first,
                        Err(why) => {
                            tail.not_stored_behind(after, may_be_stored);
                            return Err(why);
                        }
                    };
                    let Some(Found { sequence, header }) = first else {
                        return gone(may_be_stored, "the messages of the subject are gone");
                    };
                    return match header {
                        Some(header) if header.is(&self.id, number) => {
                            tail.last = Some(sequence);
                            Ok(Some(sequence))
                        }
                        Some(header) if header.after == after => Ok(None),
                        // What was between may have been ours.
                        _ => {
                            gone(may_be_stored, "messages behind the last known one were trimmed, or are not readable")
                        }
                    };
                }
                Reason::TooLarge => {
                    tail.not_stored_behind(after, may_be_stored);
                    return Err(NotPublished::TooLarge);
                }
                Reason::NoAnswer => may_be_stored = true,
                _ if may_be_stored => {}
                reason => {
                    tail.not_stored_behind(after, false);
                    let text = describe(&error);
                    return Err(match reason {
                        Reason::Full => NotPublished::Full(text),
                        Reason::NotSent => NotPublished::Unreachable(text),
                        _ => NotPublished::Refused(text),
                    });
                }
            }
            if Instant::now() >= give_up {
                return Err(NotPublished::Unknown(describe(&error)));
            }
            sleep(PAUSE).await;
        }
    }

    /// The first message behind a sequence; asks again while the server does not answer.
    async fn until_known(
        &self,
        give_up: Instant,
        may_be_stored: bool,
        subject: &str,
        after: u64,
    ) -> Result<Option<Found>, NotPublished> {
        loop {
            match self.first_behind(subject, after).await {
                Err(NotPublished::Unreachable(text)) if Instant::now() < give_up => {
                    tracing::debug!(text, subject, "it is asked again what became of a message");
                    sleep(PAUSE).await;
                }
                Err(NotPublished::Unreachable(text)) if may_be_stored => return Err(NotPublished::Unknown(text)),
                answer => return answer,
            }
        }
    }

    async fn send(&self, subject: &str, out: &Outgoing<'_>, after: u64, number: u64) -> Result<u64, PublishError> {
        let header =
            Header { rows: out.rows, publisher: self.id.clone(), number, after, position: out.position.clone() };
        let mut headers = HeaderMap::new();
        for (name, value) in header.lines(out.schema) {
            headers.insert(name, value);
        }
        let message = PublishMessage::build()
            .payload(out.payload.clone())
            .headers(headers)
            .message_id(format!("{}:{number}:{after}", self.id))
            .expected_last_subject_sequence(after)
            .expected_stream(&self.name);
        let ack = self.context.send_publish(subject.to_owned(), message).await?.await?;
        Ok(ack.sequence)
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// When a message is no longer sent again.
    pub(crate) fn give_up() -> Instant {
        Instant::now() + DOUBT
    }
}

/// Another publisher was faster; or, if ours may have been among what is gone, that is not known.
fn gone(may_be_stored: bool, text: &str) -> Result<Option<u64>, NotPublished> {
    if may_be_stored { Err(NotPublished::Unknown(text.to_owned())) } else { Ok(None) }
}

/// What an error says about the message.
enum Reason {
    WrongLast,
    TooLarge,
    Full,
    /// It was not sent, or nobody has received it.
    NotSent,
    Refused,
    /// It may be stored.
    NoAnswer,
}

fn reason(error: &PublishError) -> Reason {
    let code =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<ApiError>()).map(ApiError::error_code);
    match (error.kind(), code) {
        (PublishErrorKind::WrongLastSequence, _)
        | (_, Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)) => {
            Reason::WrongLast
        }
        (PublishErrorKind::MaxPayloadExceeded, _) | (_, Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)) => {
            Reason::TooLarge
        }
        // No stream has the subject now: the server starts, or another one becomes the leader.
        (PublishErrorKind::StreamNotFound | PublishErrorKind::MaxAckPending, _) => Reason::NotSent,
        (_, Some(code)) if is_full(code) => Reason::Full,
        // A server that is about to be able.
        (_, Some(code)) if is_transient(code) => Reason::NoAnswer,
        (_, Some(_)) => Reason::Refused,
        _ => Reason::NoAnswer,
    }
}

fn is_full(code: ErrorCode) -> bool {
    [
        ErrorCode::STREAM_STORE_FAILED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::MEMORY_RESOURCES_EXCEEDED,
    ]
    .contains(&code)
}

fn is_transient(code: ErrorCode) -> bool {
    // Codes without a meaning of their own: no leader now, a leader that is not ready.
    [ErrorCode::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY, ErrorCode(10008), ErrorCode(10009), ErrorCode(10039)]
        .contains(&code)
}

fn found(answer: Result<StreamMessage, RawMessageError>) -> Result<Option<Found>, NotPublished> {
    match answer {
        Ok(message) => Ok(Some(message.into())),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(refused) if !is_transient(refused.error_code()) => {
                Err(NotPublished::Refused(describe(&error)))
            }
            RawMessageErrorKind::InvalidSubject => Err(NotPublished::Refused(describe(&error))),
            _ => Err(NotPublished::Unreachable(describe(&error))),
        },
    }
}

fn describe(error: &(impl std::error::Error + 'static)) -> String {
    match error.source() {
        Some(source) if !error.to_string().contains(&source.to_string()) => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}
