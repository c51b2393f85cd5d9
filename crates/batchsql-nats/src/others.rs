//! Owns how a message of another publisher is opened, and given away part by part; its items that are no rows are in their file before.
//! Must not know positions, or what is settled.

use std::sync::Arc;
use std::time::SystemTime;

use batchsql_core::{BatchSql, ColumnType, Schema, StopReason, TableName};
use batchsql_feed::SourceError;

use crate::bad_log::Place;
use crate::blocks::Blocks;
use crate::format::{MOST_ITEMS, MessageFormat, OtherMessage};
use crate::items::{BadItems, Items, OpenMessage, Part, Unmapped};
use crate::link::Link;
use crate::message::Foreign;

/// A message with more bytes, or a compressed one, is read on a thread that may block.
const INLINE: usize = 16 << 10;

/// What a message of another publisher is.
pub(crate) enum Opened {
    /// None of its rows is written.
    Foreign(String),
    /// It has no items.
    Empty,
    Items(Box<OpenMessage>),
}

/// A part of the message that is open.
pub(crate) struct Given {
    pub(crate) part: Part,
    pub(crate) message: u64,
    pub(crate) time: SystemTime,
    /// As of what was read of the message.
    pub(crate) unmapped: Unmapped,
    /// It is the last one.
    pub(crate) is_end: bool,
}

/// Where a message is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thread {
    Here,
    MayBlock,
}

/// How many items of messages of other publishers may be no rows before one is: as many as rows that can never be written.
pub(crate) fn unmapped_budget(pipeline: &BatchSql, table: &TableName) -> usize {
    // It is the same for all columns that the rows of a table may have.
    let schema = Schema::builder(table.clone()).column("id", ColumnType::I64).build().ok();
    let rows = schema.and_then(|schema| pipeline.row_buffer(&schema).ok());
    rows.map_or(1, |rows| pipeline.isolation_budget(rows.into_rows().rows()))
}

/// Opens a message; items below `from` are known.
pub(crate) async fn open(
    link: &Link,
    format: &Arc<dyn MessageFormat>,
    message: OtherMessage,
    (subject, sequence, time): (&str, u64, SystemTime),
    (from, unmapped): (u32, Unmapped),
) -> Result<Opened, SourceError> {
    let (format, of_thread) = (Arc::clone(format), message.clone());
    let opened = call_on(thread_of(&message), move || format.open(&of_thread, from)).await?;
    let items = match opened {
        Ok(items) if items.last().is_none_or(|last| last < MOST_ITEMS) => items,
        Ok(_) => return Ok(Opened::Foreign(format!("it has more than {MOST_ITEMS} items"))),
        Err(why) if from > 0 => {
            return Ok(Opened::Foreign(format!("{why}; what is written of its first {from} items stays written")));
        }
        Err(why) => return Ok(Opened::Foreign(why)),
    };
    let source = (format!("{}:{}", link.name, link.incarnation), subject.to_owned());
    let open = OpenMessage::new((sequence, time), source, message, items, unmapped);
    Ok(open.map_or(Opened::Empty, |open| Opened::Items(Box::new(open))))
}

/// The next part of the message that is open. `None`: there is none.
///
/// # Errors
/// It cannot be given away: then it stays, unless its format has panicked.
pub(crate) async fn next(
    slot: &mut Option<Box<OpenMessage>>,
    link: &Arc<Link>,
    blocks: &Blocks,
) -> Result<Option<Given>, SourceError> {
    let Some(mut open) = slot.take() else { return Ok(None) };
    if open.parts.is_empty() {
        let of_thread = Arc::clone(link);
        open = call_on(thread_of(&open.message), move || {
            open.read(&|schema| of_thread.pipeline.row_buffer(schema));
            open
        })
        .await?;
    }
    let (message, time, last, unmapped) = (open.sequence, open.time, open.last, open.unmapped);
    if open.parts.is_empty()
        && let Some((item, reason)) = &open.misfit
    {
        let error = stop_at_misfit(&open, *item, reason);
        *slot = Some(open);
        return Err(error);
    }
    // A format that has announced more items than it gives must not keep its message from ending.
    let nothing = || Part { first: last, last, what: Items::Bad(BadItems::default()) };
    let part = open.parts.pop_front().unwrap_or_else(nothing);
    match &part.what {
        Items::Rows(rows) => {
            if let Err(Foreign { why, stop }) = blocks.refuse_counting(rows.rows().schema()) {
                open.parts.push_front(part);
                *slot = Some(open);
                return Err(SourceError::stop(stop.unwrap_or(StopReason::Schema), why));
            }
        }
        Items::Bad(BadItems { letters, reasons }) => {
            if !letters.is_empty()
                && let Err(error) = keep(link, letters.clone(), &format!("items of message {message}")).await
            {
                open.parts.push_front(part);
                *slot = Some(open);
                return Err(error);
            }
            let (table, path) = (open.message.table.to_string(), link.foreign.path().display().to_string());
            let place = Place { table: &table, subject: &open.subject, sequence: message, path: &path };
            let mut reasons: Vec<_> = reasons.iter().collect();
            reasons.sort_unstable_by_key(|(_, (first, _))| *first);
            for (reason, (first, count)) in reasons {
                // As people count, and as the letters do.
                link.bad_log.items(place, (u64::from(*first) + 1, *count), reason);
            }
        }
    }
    let is_end = part.last >= last;
    if !is_end {
        *slot = Some(open);
    }
    Ok(Some(Given { part, message, time, unmapped, is_end }))
}

/// Too many items that are JSON objects are no rows.
fn stop_at_misfit(open: &OpenMessage, item: u32, reason: &str) -> SourceError {
    let (number, sequence, subject) = (u64::from(item) + 1, open.sequence, &open.subject);
    let text = format!(
        "{} items that are JSON objects and no rows were set aside, and no item was a row since; the next one is item {number} of \
         message {sequence} of {subject}: {reason}; correct the fields and columns of the table and start the program again; the \
         items wait in the stream",
        open.unmapped.count()
    );
    SourceError::stop(StopReason::Schema, text)
}

/// Appends lines to the file of foreign messages.
pub(crate) async fn keep(link: &Arc<Link>, lines: String, what: &str) -> Result<(), SourceError> {
    let of_thread = Arc::clone(link);
    let kept = tokio::task::spawn_blocking(move || of_thread.foreign.append(&lines)).await;
    match kept {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let path = link.foreign.path().display();
            Err(SourceError::again(format!("{what} cannot be written to {path}: {error}")))
        }
        Err(error) => Err(has_no_thread(&error)),
    }
}

/// A compressed message may have many times the bytes that it has in the stream.
fn thread_of(message: &OtherMessage) -> Thread {
    let mut headers = message.headers.iter().flat_map(|headers| headers.iter());
    let is_compressed = headers.any(|(name, _)| name.to_string().eq_ignore_ascii_case("Content-Encoding"));
    if is_compressed || message.payload.len() > INLINE { Thread::MayBlock } else { Thread::Here }
}

async fn call_on<T: Send + 'static>(
    thread: Thread,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SourceError> {
    if thread == Thread::Here {
        return Ok(call());
    }
    tokio::task::spawn_blocking(call).await.map_err(|error| has_no_thread(&error))
}

fn has_no_thread(error: &tokio::task::JoinError) -> SourceError {
    if error.is_panic() {
        let text = "the format of messages has panicked, which is a defect; start the program again";
        return SourceError::stop(StopReason::Defect, text);
    }
    SourceError::again(format!("the runtime ends: {error}"))
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use bytes::Bytes;

    use super::*;

    #[test]
    fn large_and_compressed_messages_are_read_on_a_thread_that_may_block() {
        let thread = |bytes: usize, name: Option<&str>| {
            let headers = name.map(|name| {
                let mut headers = HeaderMap::new();
                headers.insert(name, "gzip");
                headers
            });
            thread_of(&OtherMessage::new(TableName::new("t"), headers, Bytes::from(vec![0; bytes])))
        };
        assert_eq!((thread(INLINE, None), thread(INLINE, Some("Other"))), (Thread::Here, Thread::Here));
        assert_eq!(thread(INLINE + 1, None), Thread::MayBlock);
        assert_eq!(thread(1, Some("content-encoding")), Thread::MayBlock);
    }
}
