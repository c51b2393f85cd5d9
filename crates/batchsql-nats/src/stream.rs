//! Owns the stream: the settings that it is made with, and its check.
//! Must not know messages.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use batchsql_core::TableName;
use futures_util::StreamExt as _;
use tokio::time::sleep;

use crate::error::NatsError;
use crate::settings::{Findings, PARTITIONS, findings};
use crate::stray::StrayMessages;
use crate::subject::{DEFAULT_PREFIX, Subjects, is_prefix};

/// The waits while the server does not answer: doubled up to a limit.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The most partitions of a table.
const MAX_PARTITIONS: u32 = 4096;
/// A message smaller than this has no space for a few rows.
const SMALLEST_MESSAGE: usize = 16 << 10;
/// NATS advises against larger messages.
const LARGE_MESSAGE: usize = 8 << 20;
/// Header lines: three names of up to 100 characters, each byte of which may be escaped, and what the protocol adds.
const HEADERS: usize = 5 << 10;

/// A stream with the rows of tables: one subject for each partition of each table, `<prefix>.<table>.<partition>`.
///
/// The number of partitions belongs to the stream, as its metadata `batchsql-partitions`. It never changes, because rows of a
/// key would then be in two partitions: for another number make another stream, and use it when the workers have written
/// everything of the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct StreamOptions {
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) partitions: u32,
    replicas: usize,
    max_bytes: Option<u64>,
    duplicate_window: Duration,
}

impl StreamOptions {
    /// A stream of this name, with 8 partitions for each table, one replica, and subjects that begin with `ingest`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            prefix: DEFAULT_PREFIX.to_owned(),
            partitions: 8,
            replicas: 1,
            max_bytes: None,
            duplicate_window: Duration::from_secs(120),
        }
    }

    /// The name of the stream.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What subjects begin with; default `ingest`. Two streams of an account need different ones.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The partitions of each table, from 1 to 4096; default 8. At most this number of workers write a table at the same time.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// The servers that have each message, when [`create`](Self::create) makes the stream; default 1. With 3 the messages
    /// survive the loss of a server.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// The most bytes of the stream, when [`create`](Self::create) makes it; default: what the account allows. A full stream
    /// refuses messages, so publishers wait; nothing is dropped.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// How long the server remembers the ids of messages, when [`create`](Self::create) makes the stream; default 2 minutes. A
    /// publisher does not depend on it.
    pub fn duplicate_window(mut self, window: Duration) -> Self {
        self.duplicate_window = window;
        self
    }

    /// Makes the stream, or takes the one that exists, and checks it.
    ///
    /// # Errors
    /// The options are wrong, the server does not answer ([`NatsError::is_away`]), it refuses the stream, or a stream of this
    /// name has settings with which rows would be lost.
    ///
    /// # Cancel safety
    /// The stream may be made or not: call it again.
    pub async fn create(&self, context: &Context) -> Result<StreamCheck, NatsError> {
        self.validate()?;
        match self.check(context).await {
            Err(error) if error.is_missing() => {}
            checked => return checked,
        }
        match context.create_stream(self.config()).await {
            Ok(_) => {}
            Err(error) if is_made_by_another(&error) => {
                // Its check says whether it can be used.
                tracing::debug!(stream = self.name, "another process has made the stream meanwhile");
            }
            Err(error) => {
                let name = &self.name;
                return Err(match error.kind() {
                    CreateStreamErrorKind::TimedOut => NatsError::unreachable(unreachable(name), error),
                    CreateStreamErrorKind::JetStream(refused) if is_starting(refused.error_code()) => {
                        NatsError::unreachable(unreachable(name), error)
                    }
                    _ => NatsError::new(format!("the server refuses the stream {name}: {error}")),
                });
            }
        }
        self.check(context).await
    }

    /// Checks a stream that exists.
    ///
    /// # Errors
    /// There is no such stream ([`NatsError::is_missing`]), the server does not answer ([`NatsError::is_away`]), or the stream has settings with which rows
    /// would be lost. The text names all of them.
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub async fn check_existing(&self, context: &Context) -> Result<StreamCheck, NatsError> {
        self.validate()?;
        self.check(context).await
    }

    /// The tables that the stream has messages of.
    ///
    /// # Errors
    /// The server does not answer ([`NatsError::is_away`]).
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub async fn tables(&self, context: &Context) -> Result<Vec<TableName>, NatsError> {
        let (subjects, mut tables) = (self.subjects(), BTreeMap::new());
        let add = |subject: String, _| {
            if let Some(table) = subjects.table(&subject) {
                tables.insert(table.to_string(), table);
            }
        };
        self.each_subject(context, add).await?;
        Ok(tables.into_values().collect())
    }

    /// The messages of these tables, and of none, that are of no partition, so that no worker reads them.
    ///
    /// # Errors
    /// The server does not answer ([`NatsError::is_away`]).
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub async fn stray_messages(
        &self,
        context: &Context,
        is_meant: impl Fn(&TableName) -> bool,
    ) -> Result<StrayMessages, NatsError> {
        let (subjects, mut strays) = (self.subjects(), StrayMessages::default());
        let add = |subject: String, messages| {
            let is_stray = subjects.parse(&subject).is_none_or(|(_, partition)| partition >= self.partitions);
            if is_stray && subjects.table(&subject).is_none_or(|table| is_meant(&table)) {
                strays.add(subject, messages);
            }
        };
        self.each_subject(context, add).await?;
        Ok(strays)
    }

    /// The subjects that the stream has messages of, with their number.
    async fn each_subject(&self, context: &Context, mut take: impl FnMut(String, u64)) -> Result<(), NatsError> {
        let stream = context.get_stream_no_info(&self.name).await;
        let stream = stream.map_err(|error| NatsError::unreachable(unreachable(&self.name), error))?;
        let listed = stream.info_with_subjects(self.subjects().all()).await;
        let mut listed = listed.map_err(|error| NatsError::unreachable(unreachable(&self.name), error))?;
        while let Some(listed) = listed.next().await {
            let (subject, messages) = listed.map_err(|error| NatsError::unreachable(unreachable(&self.name), error))?;
            take(subject, messages as u64);
        }
        Ok(())
    }

    /// As [`check_existing`](Self::check_existing), which waits while the server does not answer.
    pub(crate) async fn check_waiting(&self, context: &Context, who: &str) -> Result<StreamCheck, NatsError> {
        let mut wait = FIRST_WAIT;
        loop {
            match self.check_existing(context).await {
                Err(error) if error.is_away() => {
                    tracing::warn!(%error, "{who} waits for NATS");
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                checked => return checked,
            }
        }
    }

    async fn check(&self, context: &Context) -> Result<StreamCheck, NatsError> {
        let name = &self.name;
        let found = context.get_stream(name).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(refused) if refused.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                let text = format!("there is no stream {name}; make it with StreamOptions::create");
                NatsError::missing(text)
            }
            GetStreamErrorKind::JetStream(refused) if is_starting(refused.error_code()) => {
                NatsError::unreachable(unreachable(name), error)
            }
            GetStreamErrorKind::JetStream(refused) => {
                NatsError::new(format!("the server does not show the stream {name}: {refused}"))
            }
            GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                NatsError::new(format!("{name:?} cannot be the name of a stream: use letters, digits, - and _"))
            }
            GetStreamErrorKind::Request => NatsError::unreachable(unreachable(name), error),
        })?;
        let info: &Info = found.cached_info();
        let Findings { refused, mut warnings } = findings(&self.subjects().all(), self.partitions, &info.config);
        if !refused.is_empty() {
            let text = format!("the stream {name} cannot be used: {}", refused.join("; "));
            return Err(NatsError::new(text));
        }
        let max_message = self.max_message(context, &info.config)?;
        if max_message > LARGE_MESSAGE {
            warnings.push(format!("messages may have {max_message} bytes; NATS advises max_payload of at most 8MB"));
        }
        Ok(StreamCheck { incarnation: info.created.unix_timestamp_nanos().to_string(), max_message, warnings })
    }

    /// How large a message may be, without its header.
    fn max_message(&self, context: &Context, config: &Config) -> Result<usize, NatsError> {
        let of_stream = usize::try_from(config.max_message_size).ok().filter(|size| *size > 0);
        let of_server = context.client().max_payload();
        let max = of_stream.map_or(of_server, |of_stream| of_stream.min(of_server));
        if max < SMALLEST_MESSAGE {
            return Err(NatsError::new(format!(
                "the stream {} takes messages of {max} bytes; set max_payload of the server and max_msg_size of the stream to \
                 at least {SMALLEST_MESSAGE}",
                self.name
            )));
        }
        Ok(max - HEADERS)
    }

    /// Checks the options themselves, without a server.
    ///
    /// # Errors
    /// The prefix cannot be one of subjects, or the number of partitions is out of its range.
    pub fn validate(&self) -> Result<(), NatsError> {
        if !is_prefix(&self.prefix) {
            let text = format!(
                "{:?} cannot be the prefix of subjects: use letters, digits, - and _, and dots between",
                self.prefix
            );
            return Err(NatsError::new(text));
        }
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            return Err(NatsError::new(format!(
                "a table has 1 to {MAX_PARTITIONS} partitions, not {}",
                self.partitions
            )));
        }
        Ok(())
    }

    /// The subjects of this stream.
    pub(crate) fn subjects(&self) -> Subjects {
        Subjects::new(&self.prefix)
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            name: self.name.clone(),
            subjects: vec![self.subjects().all()],
            retention: RetentionPolicy::Limits,
            // A full stream refuses messages.
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            max_bytes: self.max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            max_messages: -1,
            max_messages_per_subject: -1,
            num_replicas: self.replicas,
            duplicate_window: self.duplicate_window,
            metadata: HashMap::from([(PARTITIONS.to_owned(), self.partitions.to_string())]),
            ..Config::default()
        }
    }
}

/// A stream that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamCheck {
    /// Changes when the stream is made anew: when it was created, in nanoseconds since 1970.
    pub incarnation: String,
    /// How large a message may be, in bytes.
    pub max_message: usize,
    /// What does not lose rows by itself, and should be known.
    pub warnings: Vec<String>,
}

/// Somebody was faster, with other settings than these: only some of them matter.
fn is_made_by_another(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(refused) if refused.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// A cluster has no leader yet, or not enough servers for the replicas.
fn is_starting(code: ErrorCode) -> bool {
    [ErrorCode::CLUSTER_NOT_AVAILABLE, ErrorCode::CLUSTER_NOT_LEADER, ErrorCode::CLUSTER_NO_PEERS].contains(&code)
}

fn unreachable(name: &str) -> String {
    format!("the server does not say what stream {name} is; is it running, and is JetStream switched on?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> StreamOptions {
        StreamOptions::new("rows")
    }

    #[test]
    fn options_that_cannot_be_are_refused() {
        for (options, word) in [
            (options().prefix("a.*"), "prefix"),
            (options().partitions(0), "1 to 4096"),
            (options().partitions(4097), "1 to 4096"),
        ] {
            let error = options.validate().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
