//! Looking into the folder of a durable intake without its program: what is in it, whether it is whole, the rows that wait,
//! and those that are kept. Nothing is changed.
//!
//! The example `durable_log` of this crate is a program of it:
//! `cargo run -p batchsql-durable --example durable_log -- inspect FOLDER`.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use batchsql_core::{DeadLetterLine, PartitionKey, StoredPosition, TimestampTz, Value};
use batchsql_feed::block::{LoggedSchema, Unreadable, decode, decode_schema};
pub use batchsql_log::tools::{FileSummary, Inspection};
pub use batchsql_log::{Damage, Gap, PartitionState, Recovery, UnfinishedSegment};
use batchsql_log::{FileSystem, Lock, LogError, Options, RealFileSystem, tools};

use crate::feed::claimed::Claimed;

/// The files of a log that are looked for here; its format describes them.
const IDENTITY: &str = "IDENTITY";
const LOCK: &str = "LOCK";

/// The folder of a durable intake.
///
/// ```
/// use batchsql_core::{BatchSql, ColumnType, Schema};
/// use batchsql_durable::tools::IntakeFolder;
/// use batchsql_durable::{DurableExt, DurableOptions};
/// # use batchsql_core::ErrorClass;
/// # use batchsql_testkit::ScriptedSink;
/// # use std::time::Duration;
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
/// # let sink = ScriptedSink::new();
/// # sink.break_table("events", ErrorClass::Schema);
/// # let folder = tempfile::tempdir()?;
/// let db = BatchSql::builder(sink).durable(DurableOptions::new(folder.path()).min_free_bytes(0)).start().await?;
/// let events = Schema::builder("events").column("id", ColumnType::I64).build()?;
/// db.submit(&events.row().set("id", 7_i64)?.finish()?).await?;
/// // The table is missing, so the row is left in the log.
/// db.close(Duration::ZERO).await;
///
/// let mut lines = Vec::new();
/// let export = IntakeFolder::lock(folder.path())?.export(&mut lines)?;
/// assert_eq!(export.rows, 1);
/// assert!(String::from_utf8(lines)?.contains(r#""row":{"id":7}"#));
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct IntakeFolder {
    log: PathBuf,
    /// Of the log, until it is dropped.
    _lock: Option<Box<dyn Lock>>,
}

/// What [`IntakeFolder::export`] and [`IntakeFolder::export_all`] have written, and what they could not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export {
    /// Rows that were written.
    pub rows: u64,
    /// Blocks whose rows cannot be read.
    pub unreadable: Vec<UnreadableBlock>,
    /// The log itself: what is damaged or missing in it.
    pub recovery: Recovery,
}

/// A block with rows that were to be written, and that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadableBlock {
    /// The table, quoted: `"events"`, `"audit"."events"`; empty if its record is lost.
    pub table: String,
    /// The partition.
    pub partition: u32,
    /// The first row.
    pub first: u64,
    /// The last row.
    pub last: u64,
    /// Why, without values.
    pub reason: String,
}

/// A partition whose position in the database was lost: [`IntakeFolder::lost_positions`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostPosition {
    /// The table, quoted: `"events"`, `"audit"."events"`.
    pub table: String,
    /// The partition.
    pub partition: u32,
    /// Rows of the partition up to this one have ended, as the log says.
    pub ended: u64,
    /// Up to this one, as the database says. `None`: it has no position.
    pub reached: Option<u64>,
}

impl Export {
    /// Whether every row was written that was asked for: nothing is damaged, missing or unreadable.
    pub fn is_whole(&self) -> bool {
        self.unreadable.is_empty() && self.recovery.damages.is_empty() && self.recovery.gaps.is_empty()
    }
}

/// Why a folder cannot be looked into. It has no values of rows.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ToolError(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("the durable intake in {} is used by a program; stop the program first, or look without the lock", .0.display())]
    Locked(PathBuf),
    #[error("cannot lock {}: {source}", .path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Log(LogError),
}

impl ToolError {
    /// A program uses the folder.
    pub fn is_locked(&self) -> bool {
        matches!(self.0, Kind::Locked(_))
    }

    /// The error of the log, if there is none in the folder, a newer version wrote it, or a file cannot be read.
    pub fn log_error(&self) -> Option<&LogError> {
        match &self.0 {
            Kind::Log(error) => Some(error),
            Kind::Locked(_) | Kind::Lock { .. } => None,
        }
    }
}

impl From<LogError> for ToolError {
    fn from(error: LogError) -> Self {
        Self(Kind::Log(error))
    }
}

impl IntakeFolder {
    /// The folder that was given to [`DurableOptions::new`](crate::DurableOptions::new), or the folder `log` in it. No program
    /// can use it until this value is dropped.
    ///
    /// # Errors
    /// A program uses it ([`is_locked`](ToolError::is_locked)), or its lock file cannot be opened.
    pub fn lock(folder: impl AsRef<Path>) -> Result<Self, ToolError> {
        let mut found = Self::in_use(folder);
        // Nothing is created in a folder that is something else. What is wrong with it is said by the first look.
        if found.log.join(IDENTITY).exists() {
            let path = found.log.join(LOCK);
            let lock = RealFileSystem.lock(&path).map_err(|source| ToolError(Kind::Lock { path, source }))?;
            found._lock = Some(lock.ok_or_else(|| ToolError(Kind::Locked(found.log.clone())))?);
        }
        Ok(found)
    }

    /// As [`lock`](Self::lock), but without the lock: for a folder whose program runs, and for one that cannot be written. In a
    /// folder that is used, the newest rows may look torn, and a file may disappear while it is read.
    pub fn in_use(folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        let inner = folder.join("log");
        let log = if inner.join(IDENTITY).exists() { inner } else { folder.to_owned() };
        Self { log, _lock: None }
    }

    /// Reads all files with their checksums, and lists them with the partitions of all tables. Damage is no error: it is in
    /// the result.
    ///
    /// # Errors
    /// There is no log in the folder, a newer version wrote it, or a file cannot be read.
    pub fn inspect(&self) -> Result<Inspection, ToolError> {
        Ok(tools::inspect(&self.options())?)
    }

    /// Reads all files with their checksums. The log is whole if the result has no damages and no gaps.
    /// Nothing says whether rows of [unfinished segments](Recovery::unfinished_segments) are missing.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub fn verify(&self) -> Result<Recovery, ToolError> {
        Ok(tools::verify(&self.options())?)
    }

    /// The partitions of `inspection` that stop when the next row of them is written, because the database was made anew or restored
    /// from a backup: it has no position of them although it had one, or one from before rows that have ended. `stored` has the positions of
    /// this source in the database: [`DurableBatchSql::positions`](crate::DurableBatchSql::positions), or
    /// [`BatchSql::positions`](batchsql_core::BatchSql::positions). None if rows are written at least once.
    ///
    /// # Errors
    /// The file `POSITIONS` in the folder cannot be read.
    pub fn lost_positions(&self, inspection: &Inspection, stored: &[StoredPosition]) -> io::Result<Vec<LostPosition>> {
        let folder = self.log.parent().unwrap_or(Path::new("."));
        let Some(claimed) = Claimed::look(folder)? else { return Ok(Vec::new()) };
        let incarnation: String = inspection.incarnation.iter().map(|byte| format!("{byte:02x}")).collect();
        let reached = |table: &str, partition: u32| {
            let of =
                |key: &PartitionKey| key.incarnation == incarnation && key.table == table && key.partition == partition;
            stored.iter().find(|stored| of(&stored.key)).map(|stored| stored.position.sequence)
        };
        let lost = inspection.recovery.partitions.iter().filter_map(|state| {
            let (table, partition) = (&state.table_name, state.partition);
            if !claimed.has_position(table, partition) {
                return None;
            }
            let reached = reached(table, partition).map(|sequence| u64::try_from(sequence).unwrap_or(0));
            let ended = state.settled_up_to;
            (reached.is_none_or(|reached| reached < ended)).then(|| LostPosition {
                table: table.clone(),
                partition,
                ended,
                reached,
            })
        });
        Ok(lost.collect())
    }

    /// Writes every row that waits as a line of JSON, partition by partition in order: **with its values**, so keep the output
    /// as you keep the data. It needs no schema of a program.
    ///
    /// The lines are those of a [dead-letter file](batchsql_core::DeadLetters::file), so
    /// [`DeadLetterReader`](batchsql_core::DeadLetterReader) and [`Replay`](batchsql_core::Replay) read them. The outcome is
    /// `unknown`, because a row may have been written just before the program ended. The `id` is the one that the row would
    /// have in the dead-letter file.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect), and the first error of `out`. What was written until then stays.
    pub fn export(&self, out: &mut impl Write) -> Result<Export, ToolError> {
        self.export_rows(Which::Waiting, out)
    }

    /// As [`export`](Self::export), also with the rows that have ended and are still in the log:
    /// [`DurableOptions::keep_for`](crate::DurableOptions::keep_for). Those that were rejected are among them, and in the
    /// dead-letter file too. The outcome of all is `unknown`, and `time` is when a row was stored.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    pub fn export_all(&self, out: &mut impl Write) -> Result<Export, ToolError> {
        self.export_rows(Which::All, out)
    }

    fn export_rows(&self, which: Which, out: &mut impl Write) -> Result<Export, ToolError> {
        let (mut rows, mut unreadable) = (0, Vec::new());
        let recovery = tools::export(&self.options(), |exported| {
            let block = &exported.block;
            let left_out = match which {
                Which::Waiting if exported.is_settled => return Ok(()),
                Which::Waiting => exported.settled.as_slice(),
                Which::All => &[],
            };
            match lines_without(&exported, left_out) {
                Ok(lines) => {
                    rows += lines.len() as u64;
                    lines.iter().try_for_each(|line| out.write_all(line.as_bytes()))
                }
                Err(reason) => {
                    let (table, partition) = (exported.table.clone(), exported.partition);
                    unreadable.push(UnreadableBlock {
                        table,
                        partition,
                        first: block.first,
                        last: block.last(),
                        reason,
                    });
                    Ok(())
                }
            }
        })?;
        Ok(Export { rows, unreadable, recovery })
    }

    fn options(&self) -> Options {
        Options::new(&self.log)
    }
}

/// Which rows are exported.
#[derive(Debug, Clone, Copy)]
enum Which {
    Waiting,
    All,
}

/// The lines of the rows of a block that are not in these ranges, which are in order.
fn lines_without(exported: &tools::Exported, left_out: &[RangeInclusive<u64>]) -> Result<Vec<String>, String> {
    let block = &exported.block;
    let bytes = block.schema_bytes.as_deref().ok_or("its schema record is lost")?;
    let schema = decode_schema(bytes).map_err(|error| format!("its schema cannot be read: {error}"))?;
    let columns: Vec<_> = schema.columns.iter().map(|column| (column.ty, column.is_nullable)).collect();
    let rows = decode(&columns, block.count, &block.bytes).map_err(|error: Unreadable| error.to_string())?;
    let is_left_out = |sequence: u64| {
        let index = left_out.partition_point(|ended| *ended.end() < sequence);
        left_out.get(index).is_some_and(|ended| ended.contains(&sequence))
    };
    let exported_rows = (block.first..).zip(rows).filter(|(sequence, _)| !is_left_out(*sequence));
    Ok(exported_rows.map(|(sequence, values)| line(exported, &schema, sequence, &values)).collect())
}

fn line(exported: &tools::Exported, schema: &LoggedSchema, sequence: u64, values: &[Value]) -> String {
    let source: String = exported.incarnation.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = format!("{source}:{}:{}:{sequence}", exported.table, exported.partition);
    let values = schema.columns.iter().zip(values).map(|(column, value)| (&*column.name, column.ty, value.as_ref()));
    DeadLetterLine::text_of_waiting(&schema.table, schema.rule.action, values, stored(exported.block.time), &id)
}

/// The time of a block. Bytes on a disk may say anything; what is outside of the calendar becomes 1970.
fn stored(time: SystemTime) -> TimestampTz {
    let micros = time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_micros()).ok());
    let time = micros.and_then(TimestampTz::from_micros_since_epoch);
    time.or_else(|| TimestampTz::from_micros_since_epoch(0)).expect("1970 is in the calendar")
}
