//! Owns what the partitions of a worker share: the stream as it was at the start, and how consumers are made.
//! Must not know rows or positions.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::{Info, RawMessageErrorKind, Stream};
use batchsql_core::{BatchSql, StopReason};
use batchsql_feed::{Refusal, Schemas, SourceError};

use crate::bad_log::BadLog;
use crate::format::MessageFormat;
use crate::letters::ForeignLetters;
use crate::subject::consumer_name;

/// Messages that a consumer sends ahead.
const AHEAD: usize = 8;
/// How often the server shows that a consumer lives that has nothing to send.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long one request for messages waits.
const EXPIRES: Duration = Duration::from_secs(30);
/// A consumer without a durable name is removed by the server when nobody has read from it for this time.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The stream of a worker.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: Stream<()>,
    pub(crate) name: String,
    /// As of the start.
    pub(crate) incarnation: String,
    pub(crate) foreign: ForeignLetters,
    pub(crate) bad_log: BadLog,
    pub(crate) schemas: Arc<Schemas>,
    /// Reads messages of other publishers; `None`: they are foreign.
    pub(crate) format: Option<Arc<dyn MessageFormat>>,
    /// Checks their rows.
    pub(crate) pipeline: BatchSql,
    /// For consumers that are made.
    pub(crate) ack_wait: Duration,
    /// Those who share consumers.
    pub(crate) source: String,
}

/// A consumer, and the messages that it sends.
pub(crate) struct Reader {
    pub(crate) consumer: String,
    pub(crate) messages: pull::Stream,
    /// The time in which the server wants a sign of life.
    pub(crate) ack_wait: Duration,
}

/// Why the stream cannot be used now, or not at all.
#[derive(Debug)]
pub(crate) enum NoStream {
    Unreachable(String),
    MadeAnew(String),
}

impl fmt::Display for NoStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) | Self::MadeAnew(text) => f.write_str(text),
        }
    }
}

impl From<NoStream> for SourceError {
    fn from(why: NoStream) -> Self {
        match why {
            NoStream::Unreachable(text) => Self::again(text),
            NoStream::MadeAnew(text) => Self::stop(StopReason::OtherSource, text),
        }
    }
}

impl From<NoStream> for Refusal {
    fn from(why: NoStream) -> Self {
        match why {
            NoStream::Unreachable(text) => Self::Wait(text),
            NoStream::MadeAnew(text) => Self::Stop(StopReason::OtherSource, text),
        }
    }
}

impl Link {
    /// The stream as it is now.
    ///
    /// # Errors
    /// The server does not answer; or the stream is another one than at the start.
    pub(crate) async fn info(&self) -> Result<Info, NoStream> {
        let info = self.stream.get_info().await;
        let info = info
            .map_err(|error| NoStream::Unreachable(format!("NATS does not show the stream {}: {error}", self.name)))?;
        let created = info.created.unix_timestamp_nanos().to_string();
        if created == self.incarnation {
            return Ok(info);
        }
        Err(NoStream::MadeAnew(format!(
            "the stream {} was made anew since the worker was started, so its numbers begin again; start the worker again",
            self.name
        )))
    }

    /// Messages of a subject from a sequence on, in order, without acknowledgements.
    pub(crate) async fn read_from(&self, subject: &str, start: u64) -> Result<Reader, SourceError> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: start.max(1) },
            ack_policy: AckPolicy::None,
            filter_subject: subject.to_owned(),
            inactive_threshold: FORGOTTEN,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = self.stream.create_consumer(config).await.map_err(|error| no_consumer(subject, &error))?;
        reader(&consumer, AHEAD).await.map_err(|error| no_consumer(subject, &error))
    }

    /// Messages of a subject that no worker has acknowledged, one at a time: the next one comes when this one is acknowledged,
    /// whichever worker has it. So rows keep their order.
    pub(crate) async fn share(&self, subject: &str) -> Result<Reader, SourceError> {
        let name = consumer_name(subject, &self.source);
        let config = pull::Config {
            durable_name: Some(name.clone()),
            description: Some(format!("{subject}, for workers of source {}", self.source)),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            max_deliver: -1,
            max_ack_pending: 1,
            filter_subject: subject.to_owned(),
            ..pull::Config::default()
        };
        let consumer = self.stream.get_or_create_consumer(&name, config).await;
        let consumer = consumer.map_err(|error| no_consumer(subject, &error))?;
        let found = &consumer.cached_info().config;
        if found.max_ack_pending != 1 || found.max_deliver != -1 || found.ack_policy != AckPolicy::Explicit {
            let text = format!(
                "the consumer {name} has other settings than a worker needs: ack_policy explicit, max_deliver -1 and \
                 max_ack_pending 1; remove it, or correct it"
            );
            return Err(SourceError::stop(StopReason::Settings, text));
        }
        reader(&consumer, 1).await.map_err(|error| no_consumer(subject, &error))
    }

    /// What the server counts of a consumer. `Ok(None)`: there is no such consumer any more.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) async fn consumer(&self, name: &str) -> Result<Option<consumer::Info>, ()> {
        match self.stream.consumer_info(name).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if matches!(error.kind(), ConsumerInfoErrorKind::NotFound) => Ok(None),
            Err(error) => {
                tracing::debug!(%error, name, "NATS does not show a consumer");
                Err(())
            }
        }
    }

    /// When the message with this sequence was stored; `None` if it is gone.
    pub(crate) async fn time_of(&self, sequence: u64) -> Result<Option<SystemTime>, SourceError> {
        match self.stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(time(message.time.unix_timestamp_nanos()))),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(SourceError::again(format!("NATS does not show message {sequence}: {error}"))),
        }
    }

    /// The numbers of the stream were used before.
    pub(crate) fn lost_its_end(&self, what: &str) -> String {
        format!(
            "{what}: the stream {} was restored from a backup, or a server has lost what it had not synced, so rows would get \
             numbers that were used; make a new stream",
            self.name
        )
    }

    /// The sequence of the first message of a subject from this sequence on, and when it was stored.
    pub(crate) async fn first_from(
        &self,
        subject: &str,
        sequence: u64,
    ) -> Result<Option<(u64, SystemTime)>, SourceError> {
        match self.stream.raw_message_builder().sequence(sequence).next_by_subject(subject).send().await {
            Ok(message) => Ok(Some((message.sequence, time(message.time.unix_timestamp_nanos())))),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(SourceError::again(format!("NATS does not show a message of {subject}: {error}"))),
        }
    }

    /// Removes the messages of a subject below a sequence. What is not removed now is removed later.
    ///
    /// # Errors
    /// The server does not do it now; or the number is not of the stream as it is: it was made anew, or has lost its end.
    pub(crate) async fn trim(&self, subject: &str, below: u64) -> Result<u64, String> {
        let last = self.info().await.map_err(|why| why.to_string())?.state.last_sequence;
        if below > last {
            return Err(format!("message {below} was written, but the stream {} ends at {last}", self.name));
        }
        let purged = self.stream.purge().filter(subject).sequence(below).await;
        purged.map(|purged| purged.purged).map_err(|error| error.to_string())
    }
}

/// A time of the server, in nanoseconds since 1970.
pub(crate) fn time(nanoseconds: i128) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

async fn reader(consumer: &consumer::Consumer<pull::Config>, ahead: usize) -> Result<Reader, consumer::StreamError> {
    let messages = consumer.stream().max_messages_per_batch(ahead).heartbeat(HEARTBEAT).expires(EXPIRES).messages();
    let info = consumer.cached_info();
    Ok(Reader { consumer: info.name.clone(), ack_wait: info.config.ack_wait, messages: messages.await? })
}

fn no_consumer(subject: &str, error: &dyn std::error::Error) -> SourceError {
    SourceError::again(format!("NATS has no consumer of {subject} now: {error}"))
}
