//! Owns how a message of another publisher is opened, and given away part by part; its items that are no rows are in their file before.
//! Must not know positions, or what is settled.

use std::sync::Arc;
use std::time::SystemTime;

use batchsql_core::StopReason;
use batchsql_feed::SourceError;

use crate::blocks::Blocks;
use crate::format::{MOST_ITEMS, MessageFormat, OtherMessage};
use crate::items::{Items, OpenMessage, Part};
use crate::link::Link;
use crate::message::Foreign;

/// A message with more bytes is read on a thread that may block.
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
    /// It is the last one.
    pub(crate) is_end: bool,
}

/// Opens a message; items below `from` are known.
pub(crate) async fn open(
    link: &Link,
    format: &Arc<dyn MessageFormat>,
    message: OtherMessage,
    (subject, sequence, time): (&str, u64, SystemTime),
    from: u32,
) -> Result<Opened, SourceError> {
    let (format, of_thread) = (Arc::clone(format), message.clone());
    let opened = blocking(message.payload.len(), move || format.open(&of_thread, from)).await?;
    let items = match opened {
        Ok(items) if items.last().is_none_or(|last| last < MOST_ITEMS) => items,
        Ok(_) => return Ok(Opened::Foreign(format!("it has more than {MOST_ITEMS} items"))),
        Err(why) if from > 0 => {
            return Ok(Opened::Foreign(format!("{why}; what is written of its first {from} items stays written")));
        }
        Err(why) => return Ok(Opened::Foreign(why)),
    };
    let source = (format!("{}:{}", link.name, link.incarnation), subject.to_owned());
    let open = OpenMessage::new((sequence, time), source, message, items);
    Ok(open.map_or(Opened::Empty, |open| Opened::Items(Box::new(open))))
}

/// The next part of the message that is open. `None`: there is none.
///
/// # Errors
/// It cannot be given away now: then it stays.
pub(crate) async fn next(
    slot: &mut Option<Box<OpenMessage>>,
    link: &Arc<Link>,
    blocks: &Blocks,
) -> Result<Option<Given>, SourceError> {
    let Some(mut open) = slot.take() else { return Ok(None) };
    if open.parts.is_empty() {
        let of_thread = Arc::clone(link);
        open = blocking(open.payload_len(), move || {
            open.read(&|schema| of_thread.pipeline.row_buffer(schema));
            open
        })
        .await?;
    }
    let (message, time, last) = (open.sequence, open.time, open.last);
    // A format that has announced more items than it gives must not keep its message from ending.
    let nothing = || Part { first: last, last, what: Items::Bad(String::new()) };
    let part = open.parts.pop_front().unwrap_or_else(nothing);
    match &part.what {
        Items::Rows(rows) => {
            if let Err(Foreign { why, stop }) = blocks.refuse_counting(rows.rows().schema()) {
                return Err(SourceError::stop(stop.unwrap_or(StopReason::Schema), why));
            }
        }
        Items::Bad(letters) if letters.is_empty() => {}
        Items::Bad(letters) => {
            if let Err(error) = keep(link, letters.clone(), &format!("items of message {message}")).await {
                open.parts.push_front(part);
                *slot = Some(open);
                return Err(error);
            }
            let (count, path) = (part.last - part.first + 1, link.foreign.path().display().to_string());
            tracing::warn!(message, count, path, "items of a message are no rows; they are written to a file");
        }
    }
    let is_end = part.last >= last;
    if !is_end {
        *slot = Some(open);
    }
    Ok(Some(Given { part, message, time, is_end }))
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

/// Calls it here, or on a thread that may block if a message has many bytes.
async fn blocking<T: Send + 'static>(
    bytes: usize,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SourceError> {
    if bytes <= INLINE {
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
