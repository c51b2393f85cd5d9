//! Owns the consumers of rows that were not written: a callback, a channel, a file.
//! Must not know why they failed.
//!
//! A row that waits for its consumer keeps its capacity in the buffer, so a slow consumer slows the pipeline down and
//! memory stays bounded.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::budget::capacity::Budget;
use crate::budget::guards::HeldCapacity;
use crate::outcome::letter::{DeadLetter, FailedRows};
use crate::outcome::ndjson::{FileWriter, OpenFile};
use crate::outcome::outcomes::Outcome;
use crate::row::dynamic::DynRow;

/// How long `close` waits for a dead-letter file that cannot be written.
const FILE_GRACE: Duration = Duration::from_secs(5);

/// A consumer of every row that ends as rejected, expired, purged or unknown, whether it has a receipt or
/// not. Given to [`BatchSqlBuilder::dead_letters`](crate::BatchSqlBuilder::dead_letters).
///
/// ```
/// # use batchsql_core::{BatchSql, DeadLetters};
/// # async fn run(sink: impl batchsql_core::Sink) -> Result<(), Box<dyn std::error::Error>> {
/// let (dead_letters, mut failed) = DeadLetters::channel();
/// let db = BatchSql::builder(sink).dead_letters(dead_letters).start()?;
/// tokio::spawn(async move {
///     while let Some(letter) = failed.recv().await {
///         eprintln!("{}: {:?}", letter.outcome().kind(), letter.failed_row());
///     }
/// });
/// # Ok(()) }
/// ```
pub struct DeadLetters(Kind);

enum Kind {
    Callback(Callback),
    Channel(mpsc::UnboundedSender<DeadLetter>),
    File(OpenFile),
}

type Callback = Arc<dyn Fn(&Outcome) + Send + Sync>;

impl DeadLetters {
    /// Calls back with each row.
    ///
    /// The callback runs on the pipeline's tasks before the row's capacity is given back: it must not
    /// block, and while it runs it slows the pipeline down. A panic in it is caught and logged.
    pub fn callback(callback: impl Fn(&Outcome) + Send + Sync + 'static) -> Self {
        Self(Kind::Callback(Arc::new(callback)))
    }

    /// Sends each row through a channel. A row keeps its capacity in the buffer (`buffer_size`, `buffer_bytes`) until
    /// its [`DeadLetter`] is dropped: that bounds the channel. So read the receiver, or drop it: then rows are no
    /// longer sent.
    ///
    /// A reader that submits rows again must use [`resubmit`](crate::BatchSql::resubmit): when the buffer is full of
    /// failed rows, `submit` would wait for capacity that only this reader can release.
    pub fn channel() -> (Self, FailedRows) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Kind::Channel(sender)), FailedRows::new(receiver))
    }

    /// Appends each row to a file, as one JSON object per line (NDJSON), and syncs the file after each
    /// burst. A row keeps its capacity in the buffer until its line is written. While the file cannot be
    /// written it is tried again every second; after a sync that failed, the lines of that burst are written again, so
    /// a row may have two lines. [`close`](crate::BatchSql::close) waits for it, beyond its own
    /// deadline, for 5 seconds at most; [`CloseReport::lost_letters`](crate::CloseReport::lost_letters) counts the lines
    /// that are missing then.
    ///
    /// If a process ended while it wrote a line, the next one begins a new line: only the torn line cannot be read.
    ///
    /// A file that was moved is created anew for the next line, so it can be rotated at any time. (Where there are no
    /// inode numbers, as on Windows, a file that another one has replaced is not noticed.)
    ///
    /// ```text
    /// {"version":1,"time":"2026-11-23T03:09:28.000000Z","outcome":"rejected","namespace":null,"table":"readings",
    ///  "action":"insert","class":"row","code":"2067","error":"UNIQUE constraint failed: readings.id (row error, code 2067)","attempts":1,
    ///  "row":{"id":7,"note":"n"},"types":{"id":"i64","note":"text"}}
    /// ```
    ///
    /// (One line, wrapped here.) Integers (also above 2^53, which some readers round) and finite floats are JSON
    /// numbers, JSON is JSON, bytes are `\x` and hex digits, everything else is text, times as in RFC 3339. Columns that the
    /// row left out are absent. The [`action`](crate::Action::name) tells a delete from an insert. The file holds row values: protect it like the table. It is created with the process's
    /// default permissions. [`DeadLetterReader`](crate::DeadLetterReader) reads it, [`Replay`](crate::Replay) submits its
    /// rows again.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn file(path: impl AsRef<Path>) -> std::io::Result<Self> {
        let path = path.as_ref();
        let explain = |error: std::io::Error| {
            let text = format!("cannot open the dead-letter file {}: {error}; create its folder", path.display());
            std::io::Error::new(error.kind(), text)
        };
        OpenFile::open(path).map(|file| Self(Kind::File(file))).map_err(explain)
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Callback(_) => "DeadLetters::Callback",
            Kind::Channel(_) => "DeadLetters::Channel",
            Kind::File(_) => "DeadLetters::File",
        })
    }
}

/// Where failed rows are sent.
struct Channel {
    sender: mpsc::UnboundedSender<DeadLetter>,
    /// Of a file: rows that are not yet in it.
    pending: Option<Arc<AtomicU64>>,
}

/// The consumers of one pipeline.
#[derive(Default)]
pub(crate) struct Consumers {
    callbacks: Vec<Callback>,
    /// Emptied when the pipeline has ended, so that the receivers see the end.
    channels: Mutex<Vec<Channel>>,
    files: Mutex<Vec<FileWriter>>,
    any: bool,
}

impl Consumers {
    /// Starts the consumers.
    pub(crate) fn start(consumers: Vec<DeadLetters>) -> std::io::Result<Self> {
        let any = !consumers.is_empty();
        let (mut callbacks, mut channels, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for consumer in consumers {
            match consumer.0 {
                Kind::Callback(callback) => callbacks.push(callback),
                Kind::Channel(sender) => channels.push(Channel { sender, pending: None }),
                Kind::File(file) => {
                    let (sender, receiver) = mpsc::unbounded_channel();
                    let pending = Arc::new(AtomicU64::new(0));
                    files.push(file.write_on_thread(FailedRows::new(receiver), Arc::clone(&pending))?);
                    channels.push(Channel { sender, pending: Some(pending) });
                }
            }
        }
        Ok(Self { callbacks, channels: Mutex::new(channels), files: Mutex::new(files), any })
    }

    /// Whether there is a consumer of failed rows.
    pub(crate) fn is_any(&self) -> bool {
        self.any
    }

    /// Hands over one outcome. Returns the bytes of its charge that the row keeps, if it keeps its capacity.
    pub(crate) fn send(
        &self,
        outcome: &Outcome,
        budget: &Arc<Budget>,
        charged: &impl Fn(&DynRow) -> usize,
    ) -> Option<usize> {
        for callback in &self.callbacks {
            if catch_unwind(AssertUnwindSafe(|| callback(outcome))).is_err() {
                tracing::error!(outcome = outcome.kind().name(), "the failed-row callback panicked");
            }
        }
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if channels.is_empty() {
            return None;
        }
        let row = outcome.failure()?.row();
        let bytes = charged(row);
        let capacity = Arc::new(HeldCapacity::of_row(budget, bytes, row.memory()));
        for channel in channels.iter() {
            if let Some(pending) = &channel.pending {
                pending.fetch_add(1, Ordering::Relaxed);
            }
            // If the receiver was dropped, the letter releases its capacity here.
            drop(channel.sender.send(DeadLetter::new(outcome.clone(), Arc::clone(&capacity))));
        }
        Some(bytes)
    }

    /// Ends the channels: their receivers get what was sent, then `None`.
    pub(crate) fn end_channels(&self) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Ends the channels, and waits until the files have what was sent. Returns the lines that no file could take.
    pub(crate) async fn finish(&self) -> u64 {
        self.end_channels();
        let files = std::mem::take(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner));
        let begin = std::time::Instant::now();
        let mut lost = 0;
        for file in files {
            lost += file.finish(FILE_GRACE.saturating_sub(begin.elapsed())).await;
        }
        lost
    }
}
