//! Owns the options of workers.
//! Must not know how they are used.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{PipelineConfig, Schema};

use crate::error::NatsError;
use crate::format::MessageFormat;
use crate::stream::StreamOptions;

/// The longest name of a source, in characters.
const LONGEST_SOURCE: usize = 100;
/// The longest time between two renewals of leases.
const LONGEST_RENEWAL: Duration = Duration::from_secs(2);

/// How a worker reads a stream and writes its rows.
///
/// All workers of a source have the same stream, tables and guarantee.
#[derive(Debug, Clone)]
#[must_use]
pub struct WorkerOptions {
    pub(crate) stream: StreamOptions,
    pub(crate) source: String,
    pub(crate) dead_letters: PathBuf,
    pub(crate) exactly_once: bool,
    pub(crate) schemas: Vec<Schema>,
    pub(crate) format: Option<Arc<dyn MessageFormat>>,
    pub(crate) tables: Option<Vec<String>>,
    pub(crate) owner: String,
    pub(crate) lease: Duration,
    pub(crate) release_after: Duration,
    pub(crate) ack_wait: Duration,
    pub(crate) accept_gaps: bool,
    pub(crate) keep_for: Option<Duration>,
}

impl WorkerOptions {
    /// At least once, from the stream. Rejected rows go to this file, as lines of JSON that are synced before the rows count as
    /// ended. Messages of another format go to a file beside it, with `.foreign` at the end of its name.
    pub fn new(stream: StreamOptions, dead_letters: impl Into<PathBuf>) -> Self {
        Self {
            source: stream.name().to_owned(),
            stream,
            dead_letters: dead_letters.into(),
            exactly_once: false,
            schemas: Vec::new(),
            format: None,
            tables: None,
            owner: format!("worker-{:016x}", fastrand::u64(..)),
            lease: Duration::from_secs(45),
            release_after: Duration::from_secs(30),
            ack_wait: Duration::from_secs(30),
            accept_gaps: false,
            keep_for: Some(Duration::ZERO),
        }
    }

    /// Writes every row exactly once: the position of each partition is in the table `batchsql_positions` of the database, and moves in
    /// the transaction of the rows. For PostgreSQL, MySQL, MariaDB and SQLite. Workers share the partitions out by leases in that
    /// table. Default: at least once, which also Redis can do.
    pub fn exactly_once(mut self) -> Self {
        self.exactly_once = true;
        self
    }

    /// The name of the source in the table of positions and in the names of consumers, at most 100 characters; default: the name of
    /// the stream.
    ///
    /// A new name begins with the first message of the stream. Workers that write one stream to two databases have two names. Then all of them need [`keep_for(None)`](Self::keep_for):
    /// each of them would remove what it has written, and the other one has not.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// A schema for rows of its table, in place of the one that they were published with: another rule, or one with SQL text,
    /// which is never taken from a message. Columns are found by name. Messages with another key stop their partition: give the
    /// schema that they were published with too.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schemas.push(schema);
        self
    }

    /// Reads messages of other publishers, those without the headers of `FORMAT.md`, with this format. Default: they are foreign, and
    /// none of their rows is written.
    ///
    /// An item of such a message that is no row is rejected: it goes to the file of foreign messages, which has its number, and counts as a dead
    /// letter. Nothing says which message came before such a one, so exactly once too it is not noticed if messages before it are missing.
    pub fn format(mut self, format: impl MessageFormat) -> Self {
        self.format = Some(Arc::new(format));
        self
    }

    /// Only these tables, as `name` or `namespace.name`; default: all that the stream has. Rows of others stay in the stream.
    ///
    /// All workers of a [`source`](Self::source) have the same tables; give workers with other tables another one. Exactly once,
    /// partitions are shared out as if each worker could have any of them, so some would have no worker. Workers that notice
    /// it say so in [`WorkerStats::trouble`](crate::WorkerStats::trouble).
    pub fn tables<T: Into<String>>(mut self, tables: impl IntoIterator<Item = T>) -> Self {
        self.tables = Some(tables.into_iter().map(Into::into).collect());
        self
    }

    /// The name of this worker, at most 100 characters, that no other process has; default: a random one.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }

    /// Exactly once: how long the partitions of a worker that has ended without [`Worker::close`](crate::Worker::close) stay
    /// with it; default 45 seconds, at least 1 second. It must be longer than
    /// [`statement_timeout`](batchsql_core::PipelineConfig::statement_timeout) and one renewal, because a lease is not renewed while
    /// rows of its partition are written. A worker renews its leases every 2 seconds, or three times in a shorter lease.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Exactly once: how long a worker keeps its partitions while NATS does not answer it; default 30 seconds, at least 1 second.
    /// Then it gives them to other workers, which may reach NATS, and takes partitions again when NATS answers. What it has
    /// under way is written before, as far as a third of the lease allows. It notices up to 30 seconds later, because requests to
    /// NATS wait for their answers.
    ///
    /// At least once, the server gives messages to another worker after [`ack_wait`](Self::ack_wait).
    pub fn release_after(mut self, limit: Duration) -> Self {
        self.release_after = limit;
        self
    }

    /// At least once: how long the server waits for a sign of life of the worker that has a message, before it gives the message to
    /// another one; default 30 seconds, at least 1 second. It is a setting of the consumers, which the first worker makes.
    pub fn ack_wait(mut self, wait: Duration) -> Self {
        self.ack_wait = wait;
        self
    }

    /// Exactly once: goes on behind messages that are missing, or that somebody has passed over by moving a position in the database, and
    /// counts them; default false: their partition stops. Messages
    /// that are missing before one of another format are not noticed: it does not say what came before it.
    pub fn accept_gaps(mut self, accept: bool) -> Self {
        self.accept_gaps = accept;
        self
    }

    /// How long messages stay in the stream after they were written, so that they can be written again to a database that was
    /// restored from a backup; default zero. `None`: workers remove nothing, because others read the stream too. The last written
    /// message of a partition always stays.
    pub fn keep_for(mut self, keep: Option<Duration>) -> Self {
        self.keep_for = keep;
        self
    }

    /// The file for messages of another format.
    pub(crate) fn foreign_path(&self) -> PathBuf {
        let mut name = self.dead_letters.file_name().unwrap_or_default().to_owned();
        name.push(".foreign");
        self.dead_letters.parent().unwrap_or(Path::new("")).join(name)
    }

    /// Checks the options for a pipeline with these settings, without a server.
    ///
    /// # Errors
    /// A name or a time is out of its range, or the lease is shorter than a step of the pipeline may take.
    pub fn validate(&self, settings: &PipelineConfig) -> Result<(), NatsError> {
        self.check()?;
        self.check_lease(settings.statement_timeout, renewal(self.lease))
    }

    /// The names and times alone.
    pub(crate) fn check(&self) -> Result<(), NatsError> {
        let is_name = |text: &str| {
            !text.is_empty() && text.chars().count() <= LONGEST_SOURCE && !text.contains('\0') && text.trim() == text
        };
        for (what, name) in [("source", &self.source), ("owner", &self.owner)] {
            if !is_name(name) {
                return Err(NatsError::new(format!(
                    "the name of the {what} has 1 to {LONGEST_SOURCE} characters, no space at its ends, and no NUL"
                )));
            }
        }
        for (what, time) in [("lease", self.lease), ("release_after", self.release_after), ("ack_wait", self.ack_wait)]
        {
            if time < Duration::from_secs(1) {
                return Err(NatsError::new(format!("{what} is {time:?}; it must be at least 1 second")));
            }
        }
        Ok(())
    }

    /// A step holds the row of its position, so the lease is not renewed while one is under way. If it ran out, the next owner
    /// would end the step, and its own would take as long.
    fn check_lease(&self, statement_timeout: Duration, renewal: Duration) -> Result<(), NatsError> {
        let least = statement_timeout.saturating_add(renewal);
        if !self.exactly_once || self.lease > least {
            return Ok(());
        }
        Err(NatsError::new(format!(
            "lease is {:?}; it must be longer than statement_timeout ({statement_timeout:?}) and the time between renewals \
             ({renewal:?}), because it is not renewed while rows are written; raise lease or lower statement_timeout",
            self.lease
        )))
    }
}

/// How often leases of this length are renewed.
pub(crate) fn renewal(lease: Duration) -> Duration {
    (lease / 3).min(LONGEST_RENEWAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> WorkerOptions {
        WorkerOptions::new(StreamOptions::new("rows"), "letters/dead.ndjson")
    }

    #[test]
    fn options_that_cannot_be_are_refused() {
        assert!(options().check().is_ok());
        for (options, word) in [
            (options().source(""), "source"),
            (options().source("x "), "source"),
            (options().owner("x".repeat(101)), "owner"),
            (options().lease(Duration::from_millis(999)), "lease"),
            (options().release_after(Duration::from_millis(999)), "release_after"),
            (options().ack_wait(Duration::ZERO), "ack_wait"),
        ] {
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_lease_outlasts_the_longest_step() {
        let (long, renewal) = (Duration::from_secs(30), Duration::from_secs(2));
        let with = |secs| options().lease(Duration::from_secs(secs));
        for (options, is_enough) in [
            (options().exactly_once(), true),
            (with(33).exactly_once(), true),
            (with(32).exactly_once(), false),
            (with(32), true),
        ] {
            assert_eq!(options.check_lease(long, renewal).is_ok(), is_enough, "{options:?}");
        }
        let error = with(15).exactly_once().check_lease(long, renewal).unwrap_err().to_string();
        assert!(error.contains("lease") && error.contains("statement_timeout"), "{error}");
    }

    #[test]
    fn foreign_messages_are_beside_the_dead_letters() {
        assert_eq!(options().foreign_path(), Path::new("letters/dead.ndjson.foreign"));
    }
}
