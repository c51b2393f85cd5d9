//! Owns the sink of publishers: which rows become which messages, and what became of them.
//! Must not know how a message is published.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Context;
use batchsql_core::{
    Attempt, Claim, Claimed, ErrorClass, PartitionKey, Position, Rows, Schema, SharedRows, Sink, SinkError, Step,
    Written,
};
use batchsql_feed::block::{MAX_ROWS, encode, encode_schema};
use batchsql_feed::key::KeyOrder;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::chain::{BehindOthers, Found, NotPublished, Outgoing, PAUSE_BEHIND_OTHERS, Publisher, Tail};
use crate::error::NatsError;
use crate::message::{self, SourcePosition};
use crate::partition;
use crate::stream::{StreamCheck, StreamOptions};
use crate::subject::{Subjects, table_of_quoted};

/// Publishes rows to a stream: a pipeline with this sink is a publisher.
///
/// ```no_run
/// use batchsql_core::BatchSql;
/// use batchsql_nats::{NatsSink, StreamOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let context = async_nats::jetstream::new(async_nats::connect("nats://127.0.0.1").await?);
/// let stream = StreamOptions::new("rows").partitions(8);
/// stream.create(&context).await?;
/// let db = BatchSql::builder(NatsSink::new(context, &stream).await?).start()?;
/// # let _ = db;
/// # Ok(())
/// # }
/// ```
///
/// A batch becomes one message for each partition that it has rows of, or more where a message would be too large. A row is
/// `Written` when the server has acknowledged its message. Rows of a key are in one partition, in their order. A row that is too large for a
/// message is rejected.
///
/// With `batchsql-durable` the rows are in a log on local disk first, and survive a crash of the publisher. With its
/// `exactly_once` they are published once: the position of the log is in the messages. Its log must have as many partitions
/// as the stream.
///
/// One process should publish to a subject at a time. Messages of several processes are stored one behind the other, and none is
/// lost; but they wait for each other. A log that is published exactly once does not share its subjects: who claims them last
/// has them.
#[derive(Clone)]
pub struct NatsSink(Arc<Inner>);

struct Inner {
    publisher: Publisher,
    subjects: Subjects,
    partitions: u32,
    max_message: usize,
    /// Tables that keep the order of all of their rows.
    ordered: BTreeSet<String>,
    incarnation: String,
    /// For rows without a key.
    turn: AtomicU32,
    ends: Mutex<Ends>,
}

/// The subjects that were written.
#[derive(Default)]
struct Ends {
    by_subject: HashMap<String, Arc<End>>,
    /// Of those that were claimed; the index is the id of the position.
    claimed: Vec<Arc<End>>,
}

/// One subject. Its messages are published one after the other.
struct End {
    subject: String,
    state: tokio::sync::Mutex<EndState>,
}

#[derive(Default)]
struct EndState {
    tail: Tail,
    held: Option<Held>,
}

/// A partition of a source that this process has claimed.
struct Held {
    source: (String, String),
    owner: String,
    position: Position,
}

/// The permit to write one batch.
#[derive(Debug)]
pub struct NatsConn(());

/// What is prepared for one schema.
#[derive(Debug)]
pub struct NatsPlan {
    schema: Vec<u8>,
    order: KeyOrder,
}

/// What became of some rows of a partition, by their number in the batch.
type Failures = Vec<(u32, SinkError)>;

impl NatsSink {
    /// Checks the stream, and writes to it. While the NATS server does not answer, it waits.
    ///
    /// # Errors
    /// As [`StreamOptions::check_existing`], except that the server does not answer.
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub async fn new(context: Context, stream: &StreamOptions) -> Result<Self, NatsError> {
        let StreamCheck { incarnation, max_message, warnings } = stream.check_waiting(&context, "a publisher").await?;
        for warning in warnings {
            tracing::warn!(stream = stream.name, warning, "a setting of the stream");
        }
        let handle = context.get_stream_no_info(&stream.name).await;
        let handle =
            handle.map_err(|error| NatsError::new(format!("the stream {} cannot be used: {error}", stream.name)))?;
        Ok(Self(Arc::new(Inner {
            publisher: Publisher::new(context, handle, &stream.name),
            subjects: stream.subjects(),
            partitions: stream.partitions,
            max_message,
            ordered: BTreeSet::new(),
            incarnation,
            turn: AtomicU32::new(0),
            ends: Mutex::default(),
        })))
    }

    /// All rows of these tables keep their order: they are in one partition. The sink does not see the settings of its
    /// pipeline, so give it the tables with `Ordering::PerTable`. `namespace.table`
    /// without quotes. Call it before the sink is cloned or used.
    ///
    /// # Panics
    /// If the sink was cloned.
    #[must_use]
    pub fn ordered_tables<T: Into<String>>(mut self, tables: impl IntoIterator<Item = T>) -> Self {
        let inner = Arc::get_mut(&mut self.0).expect("the sink has no clones yet");
        inner.ordered = tables.into_iter().map(Into::into).collect();
        self
    }

    /// Changes when the stream is made anew.
    pub fn incarnation(&self) -> &str {
        &self.0.incarnation
    }
}

impl fmt::Debug for NatsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { subjects, partitions, .. } = &*self.0;
        f.debug_struct("NatsSink")
            .field("subjects", &subjects.all())
            .field("partitions", partitions)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, subject: String) -> Arc<End> {
        let mut ends = self.ends();
        if let Some(end) = ends.by_subject.get(&subject) {
            return Arc::clone(end);
        }
        let end = Arc::new(End { subject: subject.clone(), state: tokio::sync::Mutex::default() });
        ends.by_subject.insert(subject, Arc::clone(&end));
        end
    }

    fn is_table_ordered(&self, schema: &Schema) -> bool {
        self.ordered.contains(schema.table_display())
    }

    /// The id of a claimed subject.
    fn id_of(&self, end: &Arc<End>) -> i64 {
        let claimed = &mut self.ends().claimed;
        let index = claimed.iter().position(|known| Arc::ptr_eq(known, end)).unwrap_or_else(|| {
            claimed.push(Arc::clone(end));
            claimed.len() - 1
        });
        i64::try_from(index).unwrap_or(i64::MAX)
    }

    fn claimed(&self, id: i64) -> Option<Arc<End>> {
        self.ends().claimed.get(usize::try_from(id).ok()?).cloned()
    }

    /// The rows of each partition, by their numbers.
    fn by_partition(&self, plan: &NatsPlan, rows: Rows<'_>) -> Vec<(u32, Vec<u32>)> {
        let mut parts: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut of_batch = None;
        for (number, row) in (0_u32..).zip(rows.iter()) {
            // Rows without a key stay together, so that they are in few messages.
            let mut turn =
                || *of_batch.get_or_insert_with(|| self.turn.fetch_add(1, Ordering::Relaxed) % self.partitions);
            let partition = partition::partition(row, &plan.order, self.partitions).unwrap_or_else(&mut turn);
            parts.entry(partition).or_default().push(number);
        }
        parts.into_iter().collect()
    }

    /// Publishes the rows of one partition, in order. The rows that were not published are listed.
    async fn write_part(&self, plan: &NatsPlan, rows: Rows<'_>, numbers: &[u32], partition: u32) -> Failures {
        let part: SharedRows = rows.gather(numbers);
        let end = self.end(self.subjects.of(rows.schema().table(), partition));
        let mut state = end.state.lock().await;
        let mut failures = Failures::new();
        // The last is the next one.
        let mut left: Vec<Range<usize>> = Vec::from([Range { start: 0, end: numbers.len() }]);
        while let Some(range) = left.pop() {
            let view = part.rows().slice(range.clone());
            match self.publish(&end.subject, &mut state.tail, plan, view, None).await {
                Ok(_) => {}
                Err(NotPublished::TooLarge) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    left.extend([middle..range.end, range.start..middle]);
                }
                Err(NotPublished::TooLarge) => failures.push((numbers[range.start], too_large(self.max_message))),
                Err(why) => {
                    let error = sink_error(why);
                    failures.extend(range.clone().map(|row| (numbers[row], error.clone())));
                    // Later rows of a key must not be published before these.
                    let not_tried = SinkError::new(ErrorClass::Transient, "rows before it were not published");
                    failures.extend(left.into_iter().flatten().map(|row| (numbers[row], not_tried.clone())));
                    break;
                }
            }
        }
        failures
    }

    /// Publishes rows in one message.
    async fn publish(
        &self,
        subject: &str,
        tail: &mut Tail,
        plan: &NatsPlan,
        rows: Rows<'_>,
        position: Option<SourcePosition>,
    ) -> Result<u64, NotPublished> {
        let payload = self.payload(plan, rows).ok_or(NotPublished::TooLarge)?;
        let behind_others = if position.is_some() { BehindOthers::GiveUp } else { BehindOthers::Publish };
        let out = Outgoing { rows: rows.len() as u32, schema: &plan.schema, payload, position };
        self.publisher.publish(subject, tail, &out, behind_others).await
    }

    /// `None`: it would be too large.
    fn payload(&self, plan: &NatsPlan, rows: Rows<'_>) -> Option<Bytes> {
        if rows.len() > MAX_ROWS {
            return None;
        }
        let payload = message::payload(&plan.schema, &encode(rows));
        (payload.len() <= self.max_message).then_some(payload)
    }

    /// Publishes a message that has only a position.
    async fn publish_position(
        &self,
        end: &End,
        tail: &mut Tail,
        position: SourcePosition,
    ) -> Result<u64, NotPublished> {
        let out = Outgoing { rows: 0, schema: &[], payload: Bytes::new(), position: Some(position) };
        self.publisher.publish(&end.subject, tail, &out, BehindOthers::GiveUp).await
    }

    /// Publishes the rows of a step with its position, or only the position.
    async fn step(&self, step: &Step, rows: Option<(&NatsPlan, Rows<'_>)>) -> Result<(), SinkError> {
        let end = self.claimed(step.id).ok_or_else(SinkError::fenced)?;
        let mut state = end.state.lock().await;
        let EndState { tail, held } = &mut *state;
        let Some(held) = held else { return Err(SinkError::fenced()) };
        if (held.position.epoch, held.position.sequence) != (step.epoch, step.from) {
            return Err(SinkError::fenced());
        }
        if !step.commits {
            return match rows {
                Some((plan, rows)) if self.payload(plan, rows).is_none() => Err(too_large(self.max_message)),
                _ => Ok(()),
            };
        }
        let position = SourcePosition { source: held.source.clone(), owner: held.owner.clone(), sequence: step.to };
        let published = match rows {
            Some((plan, rows)) => self.publish(&end.subject, tail, plan, rows, Some(position)).await,
            None => self.publish_position(&end, tail, position).await,
        };
        match published {
            Ok(_) => {
                held.position.sequence = step.to;
                Ok(())
            }
            Err(NotPublished::TooLarge) => Err(too_large(self.max_message)),
            Err(why) => Err(sink_error(why).of_position()),
        }
    }

    async fn claim(&self, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        if key.partition >= self.partitions {
            let text = format!(
                "the log has partition {}, and the stream only {}; a log has as many partitions as its stream",
                key.partition, self.partitions
            );
            return Err(SinkError::new(ErrorClass::Schema, text));
        }
        let end = self.end(self.subjects.of(&table_of_quoted(&key.table), key.partition));
        let id = self.id_of(&end);
        let mut state = end.state.lock().await;
        state.held = None;
        let source = (key.source.clone(), key.incarnation.clone());
        let give_up = Publisher::give_up();
        loop {
            let last = self.publisher.last(&end.subject).await.map_err(sink_error)?;
            let after = last.as_ref().map_or(0, |found| found.sequence);
            let has_position = |found: &Found| found.header.as_ref().is_some_and(|header| header.position.is_some());
            let is_stray = last.as_ref().is_some_and(|found| !has_position(found));
            let known = last.and_then(|Found { header, .. }| header?.position).filter(|known| known.source == source);
            let sequence = match known {
                Some(known) => match claim.refused_by(Some(&known.owner), None) {
                    Some(refused) => return Ok(refused),
                    None => known.sequence,
                },
                None => match (claim.begin_at, is_stray) {
                    (Some(sequence), _) => sequence,
                    // What is behind it would be lost. A person removes it, and the claim is made again.
                    (None, true) => return Err(stray(&end.subject, after)),
                    (None, false) => return Ok(Claimed::Missing),
                },
            };
            let position = SourcePosition { source: source.clone(), owner: claim.owner.clone(), sequence };
            // It keeps messages of the owner before from being stored behind what was read.
            state.tail = Tail::behind(after);
            match self.publish_position(&end, &mut state.tail, position).await {
                Ok(epoch) => {
                    let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
                    let position = Position { id, epoch, sequence };
                    state.held = Some(Held { source, owner: claim.owner.clone(), position });
                    return Ok(Claimed::Position(position));
                }
                Err(NotPublished::Overtaken) if Instant::now() < give_up => sleep(PAUSE_BEHIND_OTHERS).await,
                Err(why) => return Err(sink_error(why)),
            }
        }
    }
}

/// The last message of a subject has no position, although its log had one.
fn stray(subject: &str, sequence: u64) -> SinkError {
    let text = format!(
        "message {sequence} of {subject} is not of the log that publishes there exactly once; give its publisher another \
         stream, keep the message elsewhere, and remove it from this one (`nats stream rmm`)"
    );
    SinkError::new(ErrorClass::Resource, text)
}

fn too_large(max: usize) -> SinkError {
    SinkError::new(ErrorClass::Size, format!("a message may have {max} bytes, and this is more"))
}

fn sink_error(why: NotPublished) -> SinkError {
    match why {
        NotPublished::Unknown(text) => SinkError::new(ErrorClass::Unknown, format!("NATS does not answer: {text}")),
        NotPublished::Unreachable(text) => {
            SinkError::new(ErrorClass::Transient, format!("NATS is unreachable: {text}"))
        }
        NotPublished::Full(text) => {
            SinkError::new(ErrorClass::Resource, format!("the stream takes no messages now: {text}; is it full?"))
        }
        NotPublished::TooLarge => SinkError::new(ErrorClass::Size, "the message is too large"),
        // Rows wait: it is about the stream or a right, which a person changes.
        NotPublished::Refused(text) => {
            SinkError::new(ErrorClass::Resource, format!("NATS refuses the message: {text}"))
        }
        NotPublished::Overtaken => SinkError::fenced(),
    }
}

impl Sink for NatsSink {
    type Conn = NatsConn;
    type Plan = NatsPlan;

    fn name(&self) -> &'static str {
        "nats"
    }

    /// Messages of one subject follow each other, so more than its partitions would wait.
    fn max_concurrency(&self) -> Option<usize> {
        Some((self.0.partitions as usize).clamp(2, 16))
    }

    /// A batch becomes several messages, each stored or not.
    fn is_atomic(&self) -> bool {
        false
    }

    /// A message that was given up is not stored behind a later one of its subject.
    fn late_write_limit(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn keeps_positions(&self) -> bool {
        true
    }

    async fn claim(&self, _: &mut NatsConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        self.0.claim(key, claim).await
    }

    async fn advance(&self, _: &mut NatsConn, step: &Step) -> Result<(), SinkError> {
        self.0.step(step, None).await
    }

    async fn acquire(&self) -> Result<NatsConn, SinkError> {
        match self.0.publisher.context().client().connection_state() {
            State::Connected => Ok(NatsConn(())),
            state => {
                Err(SinkError::new(ErrorClass::Transient, format!("NATS is unreachable: the connection is {state}")))
            }
        }
    }

    async fn prepare(&self, _: &mut NatsConn, schema: &Schema) -> Result<NatsPlan, SinkError> {
        if !schema.returning().is_empty() {
            let text = format!(
                "table {}: a stream does not return values of written rows; remove SchemaBuilder::returning",
                schema.table_display()
            );
            return Err(SinkError::new(ErrorClass::Schema, text));
        }
        Ok(NatsPlan {
            schema: encode_schema(schema),
            order: partition::order_of(schema, self.0.is_table_ordered(schema)),
        })
    }

    async fn write(
        &self,
        _: &mut NatsConn,
        plan: &NatsPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        if let Some(step) = attempt.step() {
            return self.0.step(step, Some((plan, rows))).await.map(|()| Written::default());
        }
        if attempt.is_atomic() && rows.len() > 1 {
            let text = "a batch becomes several messages, so it cannot be stored as a whole; use Isolation::Bisect, or flush_size 1";
            return Err(SinkError::new(ErrorClass::Schema, text));
        }
        let parts = self.0.by_partition(plan, rows);
        let parts = parts.iter().map(|(partition, numbers)| self.0.write_part(plan, rows, numbers, *partition));
        let mut failures: Failures = join_all(parts).await.into_iter().flatten().collect();
        if attempt.is_atomic() {
            return failures.pop().map_or_else(|| Ok(Written::default()), |(_, error)| Err(error));
        }
        failures.sort_by_key(|(row, _)| *row);
        let (rejected, unfinished) = failures.into_iter().partition(|(_, error)| error.class() == ErrorClass::Size);
        let mut written = Written::default();
        (written.rejected, written.unfinished) = (rejected, unfinished);
        Ok(written)
    }
}
