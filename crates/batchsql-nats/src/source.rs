//! Owns one partition of a stream as a source: which rows a message has, what is missing before it, and what is settled.
//! Must not know how rows are written, or how partitions are shared out.
//!
//! The sequence of a row is that of its message in the stream, times 2^20, plus its number in the message. So a position names
//! a row of a message. A worker that takes over begins with the message of the position, whose first rows it leaves out.
//!
//! A message that was set aside takes all numbers that a message can have. So with other settings after a restart, when it may be no
//! foreign message any more, none of its rows is written.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{AckKind, Message};
use batchsql_core::{Claim, ClaimFrom, StopReason, TableName};
use batchsql_feed::{Begin, Next, NotClaimed, Refusal, Source, SourceBlock, SourceError, SourceGap};
use futures_util::{FutureExt as _, StreamExt as _};

use crate::acks::Acks;
use crate::bad_log::Place;
use crate::blocks::Blocks;
use crate::format::{MOST_ITEMS, MessageFormat, OtherMessage};
use crate::held::{Held, HeldPart};
use crate::items::{Items, OpenMessage, Unmapped};
use crate::letters::ForeignLetter;
use crate::link::{Link, Reader, time};
use crate::message::{Foreign, Header};
use crate::others::{self, Given, Opened};
use crate::reached::Reached;

/// The bits of a sequence for the number of a row in its message.
const ROW_BITS: u32 = 20;

/// One partition, and how it is read.
pub(crate) struct NatsSource {
    link: Arc<Link>,
    subject: String,
    table: TableName,
    guarantee: Guarantee,
    reached: Arc<Reached>,
    /// `None` until it is opened, and after an error.
    reader: Option<pull::Stream>,
    /// What came while the task waited.
    arrived: Option<Message>,
    /// The stream sequence of the last message that was read, or of the position.
    last: u64,
    /// When it was stored; `None` if it was not read.
    last_time: Option<SystemTime>,
    /// The sequence of the last row that was read, or of the position.
    end: u64,
    /// It was claimed, and nobody else has claimed it since as far as is known.
    is_claimed: bool,
    /// The message of the position, until one was read.
    resumed: Option<u64>,
    /// The message that is next, although something before it is missing: it was said.
    excused: Option<u64>,
    /// As the consumer counts, for a reader without acknowledgements.
    delivered: u64,
    /// Messages that are read and not settled.
    held: Held,
    blocks: Blocks,
    /// A message of another publisher, some of whose items were not given away.
    open: Option<Box<OpenMessage>>,
    /// Its sequence, also after an error has lost it: it is not acknowledged before its last part was given away.
    unended: Option<u64>,
    /// Items behind the last one that was a row.
    unmapped: Unmapped,
    acks: Option<Acks>,
    /// How long the server waits for a sign of life of the worker that holds a message.
    ack_wait: Duration,
}

/// How a partition is read.
#[derive(Debug, Clone)]
pub(crate) enum Guarantee {
    /// From a position in the database, by the worker with the lease.
    ExactlyOnce { owner: String, lease: Duration },
    /// By all workers, with acknowledgements.
    AtLeastOnce,
}

impl fmt::Debug for NatsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSource").field("subject", &self.subject).field("last", &self.last).finish_non_exhaustive()
    }
}

/// The first sequence of the rows of a message.
fn first_of(message: u64) -> u64 {
    message << ROW_BITS
}

/// The last sequence that a row of a message may have.
fn end_of(message: u64) -> u64 {
    first_of(message) + u64::from(MOST_ITEMS) - 1
}

/// The message of a row.
pub(crate) fn message_of(sequence: u64) -> u64 {
    sequence >> ROW_BITS
}

impl NatsSource {
    pub(crate) fn new(
        link: Arc<Link>,
        subject: String,
        table: TableName,
        guarantee: Guarantee,
        reached: Arc<Reached>,
    ) -> Self {
        let may_write_again = matches!(guarantee, Guarantee::AtLeastOnce);
        Self {
            blocks: Blocks::new(table.clone(), may_write_again),
            unmapped: Unmapped::new(others::unmapped_budget(&link.pipeline, &table)),
            link,
            subject,
            table,
            guarantee,
            reached,
            reader: None,
            arrived: None,
            last: 0,
            last_time: None,
            end: 0,
            is_claimed: false,
            resumed: None,
            excused: None,
            delivered: 0,
            held: Held::default(),
            open: None,
            unended: None,
            acks: None,
            ack_wait: Duration::ZERO,
        }
    }

    /// Lets another worker have what is not settled, without a wait.
    pub(crate) async fn give_back(mut self) {
        if self.is_exact() {
            return;
        }
        // What came and was not read. The reader ends first, or the server would give the messages to it again.
        let mut unread: Vec<Message> = self.arrived.take().into_iter().collect();
        if let Some(mut reader) = self.reader.take() {
            while let Some(Some(Ok(message))) = reader.next().now_or_never() {
                unread.push(message);
            }
        }
        for message in unread {
            // Otherwise it comes again when its time is over.
            let _ = message.ack_with(AckKind::Nak(None)).await;
        }
        if let Some(acks) = self.acks.take() {
            acks.give_back().await;
        }
    }

    fn is_exact(&self) -> bool {
        matches!(self.guarantee, Guarantee::ExactlyOnce { .. })
    }

    /// The next message that is there.
    async fn take(&mut self) -> Result<Option<Message>, SourceError> {
        if let Some(message) = self.arrived.take() {
            return Ok(Some(message));
        }
        if self.reader.is_none() {
            self.refuse_used_numbers().await?;
            self.delivered = 0;
            let Reader { consumer, messages, ack_wait } = match self.guarantee {
                Guarantee::ExactlyOnce { .. } => {
                    // Some of its rows may be behind the position.
                    let start = self.resumed.unwrap_or(self.last + 1);
                    self.link.read_from(&self.subject, start).await?
                }
                Guarantee::AtLeastOnce => self.link.share(&self.subject).await?,
            };
            self.reached.opens(&consumer);
            self.ack_wait = ack_wait;
            self.reader = Some(messages);
        }
        let Some(reader) = &mut self.reader else { return Ok(None) };
        match reader.next().now_or_never() {
            None => Ok(None),
            Some(Some(Ok(message))) => Ok(Some(message)),
            Some(ended) => {
                self.reader = None;
                Err(SourceError::again(match ended {
                    Some(Err(error)) => format!("NATS does not send messages of {}: {error}", self.subject),
                    _ => format!("NATS has ended the messages of {}", self.subject),
                }))
            }
        }
    }

    /// The stream must have the last message that was read, or one that came after it.
    async fn refuse_used_numbers(&self) -> Result<(), SourceError> {
        let end = self.link.info().await?.state.last_sequence;
        if end < self.last {
            let what = format!("message {} was read, but the stream ends at {end}", self.last);
            return Err(SourceError::stop(StopReason::OtherSource, self.link.lost_its_end(&what)));
        }
        if let Some(read) = self.last_time
            && self.link.time_of(self.last).await?.is_some_and(|time| time != read)
        {
            let what = format!("message {} is another one than the one that was read", self.last);
            return Err(SourceError::stop(StopReason::OtherSource, self.link.lost_its_end(&what)));
        }
        Ok(())
    }

    /// What a message is. `None`: it was read before.
    async fn place(&mut self, message: Message) -> Result<Option<Next>, SourceError> {
        let unreadable = |error| SourceError::again(format!("a message of NATS has no number: {error}"));
        let info = message.info().map_err(unreadable)?;
        let (sequence, counted, pending) = (info.stream_sequence, info.consumer_sequence, info.pending);
        let deliveries = info.delivered;
        let time = time(info.published.unix_timestamp_nanos());
        if self.is_exact() {
            // A message was lost on its way, for example when the connection was cut.
            if counted != self.delivered + 1 {
                self.reader = None;
                return Ok(None);
            }
            self.delivered = counted;
        }
        let is_seen = sequence <= self.last && self.resumed != Some(sequence);
        if is_seen || deliveries > 1 {
            self.reached.tallies().redelivered.add_one();
        }
        if is_seen {
            return self.seen(message, sequence, time).await;
        }
        let headers = message.headers.as_ref();
        let header = headers.map_or_else(|| Err(Foreign::without_headers()), Header::read);
        if self.is_exact()
            && sequence > self.last
            && self.excused != Some(sequence)
            && let Ok(header) = &header
            && header.after != self.last
        {
            return self.gap(message, sequence, header.after).await;
        }
        self.reached.comes(pending);
        if let Some(format) = &self.link.format
            && !Header::is_in(headers)
        {
            return self.open(Arc::clone(format), message, (sequence, time)).await;
        }
        let rows = header.and_then(|header| self.blocks.rows(&self.link.schemas, &message, &header));
        let next = match rows {
            Ok(Some((count, schema, rows))) => {
                Next::Block(SourceBlock::new(first_of(sequence), count, Some(schema), rows, time))
            }
            Ok(None) => Next::Skip(first_of(sequence)..=first_of(sequence)),
            Err(Foreign { stop: Some(kind), why }) => return Err(self.stop(sequence, kind, &why)),
            Err(Foreign { why, .. }) => return self.set_aside(message, (sequence, time), &why).await,
        };
        Ok(self.is_read(message, (sequence, time), next))
    }

    /// The partition goes on only after a person has done something.
    fn stop(&mut self, sequence: u64, kind: StopReason, why: &str) -> SourceError {
        self.reader = None;
        SourceError::stop(kind, format!("message {sequence} of {}: {why}", self.subject))
    }

    /// A message was read, and all of it is `next`. `None`: all of its rows are in the database.
    fn is_read(&mut self, message: Message, (sequence, time): (u64, SystemTime), next: Next) -> Option<Next> {
        let end = match &next {
            Next::Block(block) => block.last(),
            Next::Skip(rows) => *rows.end(),
            _ => first_of(sequence),
        };
        let bytes = message.payload.len();
        let is_held = self.begins(message, (sequence, time), end);
        is_held.then(|| {
            self.holds(HeldPart { message: sequence, last: end, bytes, is_end: true });
            next
        })
    }

    /// A message is read from now on. False: all of it up to its last row is in the database, as it is the message of the
    /// position.
    fn begins(&mut self, message: Message, (sequence, time): (u64, SystemTime), last: u64) -> bool {
        (self.excused, self.resumed) = (None, None);
        (self.last, self.last_time) = (sequence, Some(time));
        if last <= self.end {
            self.reached.passes();
            return false;
        }
        self.reached.holds();
        if !self.is_exact() {
            let ack_wait = self.ack_wait;
            self.acks.get_or_insert_with(|| Acks::new(ack_wait)).hold(sequence, message.split().1);
        }
        true
    }

    /// It is given away, and not settled.
    fn holds(&mut self, part: HeldPart) {
        self.end = part.last.max(self.end);
        self.held.push(part);
    }

    /// Whether nothing more is read now.
    fn is_full(&self) -> bool {
        self.held.is_full(self.open.as_ref().map_or(0, |open| open.payload_len()))
    }

    /// Opens a message of another publisher.
    async fn open(
        &mut self,
        format: Arc<dyn MessageFormat>,
        message: Message,
        (sequence, time): (u64, SystemTime),
    ) -> Result<Option<Next>, SourceError> {
        let known = (self.end + 1).saturating_sub(first_of(sequence));
        let from = u32::try_from(known).unwrap_or(MOST_ITEMS).min(MOST_ITEMS);
        if from == MOST_ITEMS {
            // It was set aside.
            self.begins(message, (sequence, time), self.end);
            return Ok(None);
        }
        let other = OtherMessage::new(self.table.clone(), message.headers.clone(), message.payload.clone());
        let at = (&*self.subject, sequence, time);
        let before = (from, self.unmapped);
        let opened = others::open(&self.link, &format, other, at, before).await.inspect_err(|_| self.reader = None)?;
        match opened {
            Opened::Foreign(why) => self.set_aside(message, (sequence, time), &why).await,
            Opened::Empty => {
                let next = Next::Skip(first_of(sequence)..=end_of(sequence));
                Ok(self.is_read(message, (sequence, time), next))
            }
            Opened::Items(open) => {
                let last = first_of(sequence) + u64::from(open.last);
                if !self.begins(message, (sequence, time), last) {
                    return Ok(None);
                }
                (self.open, self.unended) = (Some(open), Some(sequence));
                self.next_part().await
            }
        }
    }

    /// The next part of the message that is open.
    async fn next_part(&mut self) -> Result<Option<Next>, SourceError> {
        let given = others::next(&mut self.open, &self.link, &self.blocks).await?;
        let Some(Given { part, message, time, unmapped, is_end }) = given else { return Ok(None) };
        self.unmapped = unmapped;
        if is_end {
            self.unended = None;
        }
        let [first, last] = [part.first, part.last].map(|number| first_of(message) + u64::from(number));
        self.holds(HeldPart { message, last, bytes: part.bytes(), is_end });
        Ok(Some(match part.what {
            Items::Rows(rows) => Next::Block(SourceBlock::of_rows(first, rows, time)),
            Items::Bad(_) => Next::Rejected(first..=last),
        }))
    }

    /// A message that was read before: it is still held, or its acknowledgement was lost.
    async fn seen(&mut self, message: Message, sequence: u64, time: SystemTime) -> Result<Option<Next>, SourceError> {
        if self.is_exact() {
            self.reached.passes();
            return Ok(None);
        }
        // Messages are stored in their order. So one that was stored after the last one, and has its number or a smaller one, was
        // never read.
        let is_other = |last| time > last || (sequence == self.last && time != last);
        if self.last_time.is_some_and(is_other) {
            let what = format!("message {sequence} came after message {}", self.last);
            return Err(SourceError::stop(StopReason::OtherSource, self.link.lost_its_end(&what)));
        }
        let (_, acker) = message.split();
        let acker = match &self.acks {
            Some(acks) => acks.replace(sequence, acker),
            None => Some(acker),
        };
        if let Some(acker) = acker
            && let Err(error) = acker.ack().await
        {
            tracing::debug!(%error, sequence, "a message could not be acknowledged again; it will come once more");
        }
        Ok(None)
    }

    /// The message names another one as that before it than the last one that was read.
    async fn gap(&mut self, message: Message, sequence: u64, after: u64) -> Result<Option<Next>, SourceError> {
        // The server says whether there is one between.
        let first = self.link.first_from(&self.subject, self.last + 1).await;
        if !matches!(first, Ok(Some((first, _))) if first == sequence) {
            // It is read again.
            self.reader = None;
            return first.map(|_| None);
        }
        let gap = SourceGap::new(
            self.end + 1,
            first_of(sequence) - 1,
            1,
            format!(
                "messages of {} are missing: {} was read last, and message {sequence} came after {after}; the stream was purged, \
                 or the database is older than the stream: restore one of them, or accept the loss with \
                 WorkerOptions::accept_gaps",
                self.subject, self.last
            ),
        );
        self.excused = Some(sequence);
        self.delivered -= 1;
        self.arrived = Some(message);
        Ok(Some(Next::Gap(gap)))
    }

    /// Writes a message to the file of foreign ones, and goes on behind it.
    async fn set_aside(
        &mut self,
        message: Message,
        (sequence, time): (u64, SystemTime),
        why: &str,
    ) -> Result<Option<Next>, SourceError> {
        let subject = &self.subject;
        let source = format!("{}:{}", self.link.name, self.link.incarnation);
        let letter = ForeignLetter {
            source: &source,
            subject,
            sequence,
            item: None,
            // What is not the position of the message before is in it. Items up to there are rows, or have letters of their own.
            is_partly_written: self.end >= first_of(sequence),
            reason: why,
            headers: message.headers.as_ref(),
            payload: &message.payload,
        };
        let kept = others::keep(&self.link, letter.line(), &format!("message {sequence} of {subject}")).await;
        if let Err(error) = kept {
            // It is read again.
            self.reader = None;
            return Err(error);
        }
        let (table, path) = (self.table.to_string(), self.link.foreign.path().display().to_string());
        self.link.bad_log.message(Place { table: &table, subject: &self.subject, sequence, path: &path }, why);
        self.reached.tallies().foreign.add_one();
        Ok(self.is_read(message, (sequence, time), Next::Skip(first_of(sequence)..=end_of(sequence))))
    }
}

impl Source for NatsSource {
    async fn next(&mut self) -> Result<Next, SourceError> {
        loop {
            if self.is_full() {
                return Ok(Next::Nothing);
            }
            if self.open.is_some()
                && let Some(next) = self.next_part().await?
            {
                return Ok(next);
            }
            let Some(message) = self.take().await? else { return Ok(Next::Nothing) };
            if let Some(next) = self.place(message).await? {
                return Ok(next);
            }
        }
    }

    async fn ready(&mut self) {
        if self.is_full() {
            // Until something is settled.
            return std::future::pending().await;
        }
        if self.arrived.is_some() || self.open.is_some() {
            return;
        }
        let Some(reader) = &mut self.reader else { return };
        match reader.next().await {
            Some(Ok(message)) => self.arrived = Some(message),
            Some(Err(error)) => {
                tracing::warn!(%error, subject = self.subject, "NATS does not send messages; trying again");
                self.reader = None;
            }
            None => self.reader = None,
        }
    }

    async fn settle(&mut self, rows: RangeInclusive<u64>) -> Result<(), SourceError> {
        let end = *rows.end();
        let ended = self.held.settle(end);
        self.reached.settle(message_of(end), ended);
        let Some(acks) = &self.acks else { return Ok(()) };
        // A message that is open may have more rows than those that are held.
        let unended = self.unended.unwrap_or(u64::MAX);
        let below = self.held.front().unwrap_or(unended);
        let settled = acks.settle(below).await;
        settled.map_err(|error| {
            SourceError::again(format!("a message of {} cannot be acknowledged: {error}", self.subject))
        })
    }

    async fn claim(&mut self) -> Result<Claim, Refusal> {
        match &self.guarantee {
            // A database without a position is new, or was made anew: then the first message tells whether it has all.
            Guarantee::ExactlyOnce { owner, lease } => {
                Ok(Claim::of(&**owner).from(ClaimFrom::Anyone).or_begin_at(0).lease(*lease))
            }
            Guarantee::AtLeastOnce => Err(Refusal::Stop(StopReason::Settings, "it is read at least once".to_owned())),
        }
    }

    fn not_claimed(&mut self, why: NotClaimed) -> Refusal {
        match why {
            NotClaimed::Missing => {
                let text = "the database has no position of this partition any more";
                Refusal::Stop(StopReason::Position, text.to_owned())
            }
            _ => {
                self.reached.lose(self.is_claimed);
                self.is_claimed = false;
                Refusal::Stop(StopReason::Fenced, "another worker has it".to_owned())
            }
        }
    }

    /// The messages between may be those of other partitions.
    fn rows_between(&self, _: u64, _: u64) -> u64 {
        1
    }

    async fn begin_at(&mut self, position: u64) -> Result<Begin, Refusal> {
        let info = self.link.info().await?;
        let (message, end) = (message_of(position), info.state.last_sequence);
        if message > end {
            let what = format!("the position in the database is message {message}, but the stream ends at {end}");
            return Err(Refusal::Stop(StopReason::OtherSource, self.link.lost_its_end(&what)));
        }
        self.reached.is_claimed();
        self.is_claimed = true;
        (self.open, self.unended, self.unmapped) = (None, None, self.unmapped.anew());
        (self.last, self.end) = (message, position);
        self.resumed = (message > 0).then_some(message);
        Ok(Begin::default())
    }
}
