//! Owns what a source of rows is: blocks in order, gaps, what is settled, and whose position it is.
//! Must not know how rows are written.

use std::fmt;
use std::future::{Future, ready};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

use batchsql_core::{Claim, SharedRows, StopReason};

/// One partition of a source, read by one task. All rows of a partition are of one table.
///
/// Every row has a sequence, which rises within the partition and may have holes between blocks: the rows of a block have
/// `first..first + count`, and the next block begins anywhere above. A sequence always names the same row, also after a
/// restart.
///
/// Only the front of the partition is settled: a call of [`settle`](Self::settle) says that every row up to its end has ended.
/// Rows that were not settled come again after a restart, in their order.
pub trait Source: Send + 'static {
    /// The next block, or why there is none now. It answers soon: what takes long belongs to [`ready`](Self::ready). It reads
    /// ahead of what is settled only as far as the source allows, and that bounds the memory of the partition.
    ///
    /// # Errors
    /// It is called again after a pause, or only by the next process, as the error says.
    fn next(&mut self) -> impl Future<Output = Result<Next, SourceError>> + Send;

    /// Completes when [`next`](Self::next) may have something else to say than [`Next::Nothing`]. After each
    /// [`settle`](Self::settle) `next` is called in any case.
    ///
    /// # Cancel safety
    /// It is dropped and called again at any time: no change may be lost.
    fn ready(&mut self) -> impl Future<Output = ()> + Send;

    /// All rows up to the end of this range have ended. Ranges rise, and what is between them are holes.
    ///
    /// # Errors
    /// The rows may come again after a restart. The task goes on.
    fn settle(&mut self, rows: RangeInclusive<u64>) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// The task ends. These rows have ended too, although a row before them has not, and none of them keeps an order with it. A source
    /// that remembers it leaves them out after a restart: by [`Next::Skip`], or by [`SourceBlock::ended`]. Default: they come
    /// again.
    ///
    /// # Errors
    /// The rows may come again.
    fn settle_behind(
        &mut self,
        rows: Vec<RangeInclusive<u64>>,
    ) -> impl Future<Output = Result<(), SourceError>> + Send {
        let _ = rows;
        ready(Ok(()))
    }

    /// The table cannot be written now (`true`), so that these rows may stay for long; or it can again. Default: nothing.
    fn set_aside(&mut self, is_aside: bool) {
        let _ = is_aside;
    }

    /// Which claim the task makes before it writes rows exactly once: the owner, from whom it takes the partition, and where a
    /// partition begins that has no position. What the source must remember of its claims is durable when this returns.
    /// Default: the source cannot be written exactly once.
    fn claim(&mut self) -> impl Future<Output = Result<Claim, Refusal>> + Send {
        let text = "this source cannot be written exactly once";
        ready(Err(Refusal::Stop(StopReason::Settings, text.to_owned())))
    }

    /// The claim was not accepted, at the start or after a lost reply: whether the task stops or tries again, and what a
    /// person reads.
    fn not_claimed(&mut self, why: NotClaimed) -> Refusal {
        let (kind, text) = match why {
            NotClaimed::Missing => (StopReason::Position, "the database has no position of this partition"),
            NotClaimed::Other => (StopReason::Fenced, "another process has claimed it"),
        };
        Refusal::Stop(kind, text.to_owned())
    }

    /// How many rows are behind the sequence `from` up to `to`, or the least that there may be: for the count of rows that are
    /// missing. Default: the difference.
    fn rows_between(&self, from: u64, to: u64) -> u64 {
        to.saturating_sub(from)
    }

    /// The partition is claimed, and rows up to `position` are in the database. The source compares this with what it has.
    /// [`next`](Self::next) is called only after this, and may return rows up to the position: they are left out. After
    /// [`not_claimed`](Self::not_claimed) has said [`Refusal::Wait`] it is called again: reading begins anew behind the position
    /// then, with rows that `next` has returned before.
    fn begin_at(&mut self, position: u64) -> impl Future<Output = Result<Begin, Refusal>> + Send {
        let _ = position;
        ready(Ok(Begin::default()))
    }
}

/// What a source has next.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Next {
    /// Rows.
    Block(SourceBlock),
    /// Rows are missing. The partition stops, unless [gaps are accepted](crate::FeedOptions::accept_gaps).
    Gap(SourceGap),
    /// These sequences need no write, and are settled in their turn: the source has dealt with them, for example by a dead
    /// letter of its own that is durable.
    Skip(RangeInclusive<u64>),
    /// The rows with these sequences are no rows, and are rejected: the source has dead letters of its own for them, which are
    /// durable. They are counted as read, and as dead letters.
    Rejected(RangeInclusive<u64>),
    /// Nothing now; [`Source::ready`] waits for more.
    Nothing,
}

/// Some rows of one schema, as a source has them. The bytes are those of [`block`](crate::block).
#[derive(Clone)]
#[non_exhaustive]
pub struct SourceBlock {
    /// The sequence of the first row.
    pub first: u64,
    /// The number of rows, at least 1.
    pub count: u32,
    /// The schema record; `None` if it is lost.
    pub schema: Option<Arc<[u8]>>,
    /// The rows.
    pub bytes: Vec<u8>,
    /// The rows, if the source has them in memory. Then schema and bytes are not used.
    pub rows: Option<SharedRows>,
    /// When they were stored.
    pub time: SystemTime,
    /// Rows that have ended before, see [`Source::settle_behind`]: they are not written at least once. In order.
    pub ended: Vec<RangeInclusive<u64>>,
}

/// Without the bytes: they are values of the caller.
impl fmt::Debug for SourceBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceBlock")
            .field("first", &self.first)
            .field("count", &self.count)
            .field("bytes", &format_args!("{} bytes", self.bytes.len()))
            .field("rows", &self.rows.as_ref().map(|rows| rows.rows().len()))
            .field("time", &self.time)
            .finish()
    }
}

impl SourceBlock {
    /// Rows from the sequence `first` on.
    pub fn new(first: u64, count: u32, schema: Option<Arc<[u8]>>, bytes: Vec<u8>, time: SystemTime) -> Self {
        Self { first, count, schema, bytes, rows: None, time, ended: Vec::new() }
    }

    /// Rows that the source has in memory, from the sequence `first` on. Their schema is one that rows of this program were
    /// submitted with.
    pub fn of_rows(first: u64, rows: SharedRows, time: SystemTime) -> Self {
        let count = u32::try_from(rows.rows().len()).unwrap_or(u32::MAX);
        Self { first, count, schema: None, bytes: Vec::new(), rows: Some(rows), time, ended: Vec::new() }
    }

    /// The same, of which these rows have ended.
    #[must_use]
    pub fn with_ended(mut self, ended: Vec<RangeInclusive<u64>>) -> Self {
        self.ended = ended;
        self
    }

    /// The sequence of the last row.
    pub fn last(&self) -> u64 {
        self.first + u64::from(self.count).max(1) - 1
    }
}

/// Rows that are missing in a source.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SourceGap {
    /// The first sequence that is missing.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// How many rows are missing, as far as the source knows.
    pub rows: u64,
    /// What is missing, and what a person can do.
    pub text: String,
}

impl SourceGap {
    /// Rows are missing between these sequences, both included.
    pub fn new(first: u64, last: u64, rows: u64, text: impl Into<String>) -> Self {
        Self { first, last, rows, text: text.into() }
    }
}

/// A source could not do what it was asked for.
#[derive(Debug, Clone)]
pub struct SourceError {
    text: String,
    pub(crate) stop: Option<StopReason>,
}

impl SourceError {
    /// The call is repeated after a pause.
    pub fn again(text: impl Into<String>) -> Self {
        Self { text: text.into(), stop: None }
    }

    /// The partition stops, and a person has to do something: what, is in the text.
    pub fn stop(kind: StopReason, text: impl Into<String>) -> Self {
        Self { text: text.into(), stop: Some(kind) }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for SourceError {}

/// Why a partition is not written exactly once now, with a text for people: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a task goes on or it does not")]
pub enum Refusal {
    /// It stops, until a person has done something.
    Stop(StopReason, String),
    /// It tries again by itself, after a pause.
    Wait(String),
}

/// What the database has said to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotClaimed {
    /// It has no position of the partition, although there was one.
    Missing,
    /// Another owner has claimed it.
    Other,
}

/// How a source fits to the position of its partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Begin {
    /// Rows up to this sequence are not written, also if the position is lower; 0 for none.
    pub passed: u64,
    /// Rows that may be missing in the database, and were accepted as lost.
    pub missing: u64,
}

impl Begin {
    /// Rows up to `passed` are not written, although `missing` of them may not be in the database.
    pub fn behind(passed: u64, missing: u64) -> Self {
        Self { passed, missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_shown_without_its_rows() {
        let block = SourceBlock::new(3, 1, None, b"SECRET".to_vec(), SystemTime::UNIX_EPOCH);
        let text = format!("{block:?}");
        assert!(text.contains("bytes: 6 bytes") && !text.contains("83, 69"), "{text}");
    }
}
