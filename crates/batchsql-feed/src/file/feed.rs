//! Owns a file that is fed into a database: the pipeline, the source and its task.
//! Must not know lines or positions.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{BatchSql, BatchSqlBuilder, CloseReport, Isolation, PipelineConfig, Sink};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use super::error::FileError;
use super::monitor::Monitor;
use super::name::identity;
use super::options::FileOptions;
use super::source::{FileSource, SeenEnd};
use crate::feeds::Feeds;
use crate::key::OrderedTables;
use crate::letters::Letters;
use crate::options::{FeedOptions, without_ends};
use crate::schemas::Schemas;
use crate::state::{PartitionState, StoppedPartition};

/// The longest name of a source, in characters.
const LONGEST_SOURCE: usize = 100;

/// How often open batches are written while somebody waits.
const NUDGE: Duration = Duration::from_millis(5);

/// Writes the lines of a file to a database, and the lines that are appended to it: at least once, or exactly once
/// ([`FileOptions::exactly_once`]). A later start goes on where this one has ended, also after a kill.
///
/// - A line is a JSON object. The last line waits until it has a line feed.
/// - Lines are written in their order: exactly once all of them, at least once those of one key.
/// - A line that is no row is in the file of [bad lines](FileOptions::bad_lines), a row that the database refuses in that of
///   [dead letters](FileOptions::dead_letters), before later lines count as written. A line may be there twice, with one `id`.
/// - The file is named by its content. A file that was replaced or truncated is [not taken for it](super::WhenReplaced).
/// - One process at a time feeds a file: its [mark](FileOptions::mark) is locked.
///
/// ```
/// use std::time::Duration;
///
/// use batchsql_core::{BatchSql, ColumnType, Schema};
/// use batchsql_feed::file::{FileFeed, FileOptions};
/// # use batchsql_testkit::ScriptedSink;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("events.ndjson");
/// # std::fs::write(&path, "{\"id\": 1}\n{\"id\": 2}\n")?;
/// # let sink = ScriptedSink::new();
/// # sink.keep_positions();
/// let events = Schema::builder("events").column("id", ColumnType::I64).build()?;
/// let options = FileOptions::new(&path, &events).exactly_once("events file");
/// let feed = FileFeed::start(BatchSql::builder(sink), options).await?;
/// let lines = feed.flush().await?;
/// println!("{lines} lines are in the table, or in the file of those that are not");
/// feed.close(Duration::from_secs(10)).await;
/// # assert_eq!(lines, 2);
/// # Ok(())
/// # }
/// ```
pub struct FileFeed {
    pipeline: BatchSql,
    feeds: Arc<Feeds<FileSource>>,
    monitor: Arc<Monitor>,
    monitoring: Monitoring,
    state: Arc<PartitionState>,
    ends: watch::Receiver<SeenEnd>,
    asked: watch::Sender<u64>,
    bad_lines: Arc<AtomicU64>,
    incarnation: String,
    options: FileOptions,
}

/// The task that tells the observers; it ends with the feed.
struct Monitoring(JoinHandle<()>);

impl Drop for Monitoring {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a feed has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct FileReport {
    /// Every line up to this one has ended; the next start goes on behind it.
    pub lines: u64,
    /// Why the mark could not be written, if so: the next start writes lines again, or asks the database.
    pub mark_error: Option<String>,
    /// How the pipeline has ended.
    pub pipeline: CloseReport,
}

impl fmt::Debug for FileFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileFeed")
            .field("path", &self.options.path)
            .field("lines", &self.lines())
            .finish_non_exhaustive()
    }
}

impl FileFeed {
    /// Starts a pipeline on the current Tokio runtime, and feeds the file from behind the last line that has ended. It waits
    /// until the file is there and has a first line.
    ///
    /// Of the settings of the pipeline, `when_full`, `retry_for`, `max_age` and `park_for` do not apply: lines wait for as long
    /// as it takes. Nor does `BeyondBudget::Reject` in `isolation`: a table that refuses all rows is parked.
    ///
    /// # Errors
    /// The settings cannot work with a file, or the file or its mark cannot be used: another process uses it
    /// ([`is_locked`](FileError::is_locked)), or it was replaced ([`is_replaced`](FileError::is_replaced)).
    ///
    /// # Cancel safety
    /// If it is dropped, nothing is written.
    pub async fn start<S: Sink>(builder: BatchSqlBuilder<S>, options: FileOptions) -> Result<Self, FileError> {
        let config = builder.settings();
        refuse(builder.sink(), &config, &options)?;
        let ordered = OrderedTables::of(&config);
        let path = options.dead_letters_path();
        let opened = spawn_blocking(move || Letters::open(&path)).await.map_err(std::io::Error::other);
        let letters = opened.and_then(|letters| letters).map_err(|error| {
            let path = options.dead_letters_path();
            FileError::io(&format!("cannot open the dead-letter file {}; check its folder", path.display()), error)
        })?;
        let reporter = builder.feed_reporter();
        let pipeline = without_ends(builder, config).start()?;
        let source = match FileSource::open(options.clone(), pipeline.clone()).await {
            Ok(source) => source,
            Err(error) => {
                pipeline.close(Duration::ZERO).await;
                return Err(error);
            }
        };
        let incarnation = source.incarnation().to_owned();
        let schemas = Arc::new(Schemas::new(vec![options.schema.clone()], "FileOptions::new"));
        let mut feed = FeedOptions::new(&*incarnation, Arc::new(letters), schemas, ordered).called("the file");
        if let Some(name) = &options.exactly_once {
            feed = feed.exactly_once(name);
        }
        let (state, bad_lines) = (Arc::new(source.state()), source.bad_lines());
        let (ends, asked) = (source.ends(), source.asked());
        let feeds = Arc::new(Feeds::new(pipeline.clone(), feed, Handle::current()));
        feeds.start(Arc::clone(&state), source).map_err(|error| FileError::stopped(error.to_string()))?;
        let monitor = Arc::new(Monitor {
            reporter,
            path: options.path.clone(),
            table: options.schema.table_display().to_owned(),
            state: Arc::clone(&state),
            ends: ends.clone(),
            bad_lines: Arc::clone(&bad_lines),
            reported: Mutex::default(),
        });
        let monitoring = Monitoring(tokio::spawn(Arc::clone(&monitor).run(Arc::clone(&feeds))));
        Ok(Self { pipeline, feeds, monitor, monitoring, state, ends, asked, bad_lines, incarnation, options })
    }

    /// Every line up to this one has ended: it is in the table, or in one of the files of lines that are not.
    pub fn lines(&self) -> u64 {
        self.state.settled()
    }

    /// Which file it is: the incarnation in `batchsql_positions`, and the begin of the ids of dead letters.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Lines that are no rows, and were read since the start.
    pub fn bad_lines(&self) -> u64 {
        self.bad_lines.load(Ordering::Relaxed)
    }

    /// Why the feed does not go on without a person, if so.
    pub fn stopped(&self) -> Option<StoppedPartition> {
        self.state.stopped()
    }

    /// Why no line is written now, if so. It tries again by itself.
    pub fn waiting(&self) -> Option<StoppedPartition> {
        self.state.waiting()
    }

    /// The setting of the database with which its crash may lose written lines, and what to do, see
    /// [`Feeds::lossy_setting`].
    pub fn lossy_setting(&self) -> Option<String> {
        self.feeds.lossy_setting()
    }

    /// The pipeline, for its balance and its health.
    pub fn pipeline(&self) -> &BatchSql {
        &self.pipeline
    }

    /// Waits until every complete line that is in the file now has ended, and returns the number of the last one. It waits for
    /// as long as the database is unreachable.
    ///
    /// # Errors
    /// The state of the file cannot be read, or the feed has stopped ([`is_stopped`](FileError::is_stopped)).
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the writing.
    pub async fn flush(&self) -> Result<u64, FileError> {
        let path = self.options.path.clone();
        let found = spawn_blocking(move || std::fs::metadata(path)).await.map_err(std::io::Error::other);
        let found = found.and_then(|found| found);
        let what = || format!("cannot read the state of {}", self.options.path.display());
        let found = found.map_err(|error| FileError::io(&what(), error))?;
        let file = Some(identity(&found));
        let (mut ends, mut progress) = (self.ends.clone(), self.feeds.progress());
        let mut look = 0;
        // An end that was seen before is not enough: the file may have grown, or have been truncated, also to other lines.
        self.asked.send_modify(|asked| {
            *asked += 1;
            look = *asked;
        });
        loop {
            progress.mark_unchanged();
            let end = *ends.borrow_and_update();
            if let Some(stopped) = self.state.stopped() {
                return Err(FileError::stopped(stopped.to_string()));
            }
            // If the name leads to another file, the source finds it too, and stops.
            if end.file == file && end.asked >= look && self.lines() >= end.line {
                return Ok(end.line);
            }
            tokio::select! {
                // The last batches would wait for `flush_interval`.
                () = self.nudge() => {}
                _ = progress.changed() => {}
                changed = ends.changed() => if changed.is_err() {
                    return Err(FileError::stopped("the feed has ended; start it again"));
                },
            }
        }
    }

    /// Reads no more lines, waits until those that are being written have ended, until the deadline, and stores how far the file
    /// is written. Lines that have not ended are written by the next start.
    ///
    /// # Cancel safety
    /// If it is dropped, the tasks end, and the next start finds out what was written.
    pub async fn close(self, deadline: Duration) -> FileReport {
        let begin = tokio::time::Instant::now();
        let ended = {
            let stop = self.feeds.stop(self.state.table(), self.state.partition(), deadline);
            tokio::pin!(stop);
            loop {
                tokio::select! {
                    ended = &mut stop => break ended,
                    () = self.nudge() => {}
                }
            }
        };
        let pipeline = self.pipeline.close(deadline.saturating_sub(begin.elapsed())).await;
        self.feeds.end().await;
        let Self { mut monitoring, .. } = self;
        monitoring.0.abort();
        // It was aborted, or has ended because there are no observers.
        let _ = (&mut monitoring.0).await;
        // The last one, when nothing changes any more.
        self.monitor.report(self.feeds.counts()).await;
        let mark_error = match ended {
            Some(source) => source.close().await.err().map(|error| error.to_string()),
            None => None,
        };
        FileReport { lines: self.state.settled(), mark_error, pipeline }
    }

    async fn nudge(&self) {
        tokio::time::sleep(NUDGE).await;
        let _ = self.pipeline.flush().await;
    }
}

/// Settings that cannot work.
fn refuse<S: Sink>(sink: &S, config: &PipelineConfig, options: &FileOptions) -> Result<(), FileError> {
    let refused = |text: String| Err(FileError::settings(text));
    let schema = &options.schema;
    let Some(source) = &options.exactly_once else {
        if schema.counts_repeats() {
            return refused(format!(
                "table {:?} has a rule with Expr::add or Expr::raw, and a line may be written more than once; use \
                 FileOptions::exactly_once, accept it with Conflict::may_add_twice, or use another rule",
                schema.table_display()
            ));
        }
        return Ok(());
    };
    if !sink.keeps_positions() {
        return refused(format!(
            "{} keeps no positions, so lines cannot be written exactly once; leave out exactly_once, and use a rule with a key",
            sink.name()
        ));
    }
    if config.isolation == Isolation::AtomicBatch {
        let text =
            "isolation is AtomicBatch, but lines that are written exactly once have no batches; use Isolation::Bisect";
        return refused(text.to_owned());
    }
    if source.is_empty() || source.chars().count() > LONGEST_SOURCE || source.contains('\0') || source.trim() != source
    {
        return refused(format!(
            "the name of the source has 1 to {LONGEST_SOURCE} characters, no space at its ends, and no NUL"
        ));
    }
    Ok(())
}
