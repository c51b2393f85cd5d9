//! Owns the dead-letter file: one JSON object per failed row and line, written by a thread of its own.
//! Must not know the pipeline.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::model::temporal::TimestampTz;
use crate::model::value::ValueRef;
use crate::outcome::letter::{DeadLetter, FailedRows};
use crate::row::traits::Row;
use serde_json::{Map, Value as JsonValue, json};

/// How long the thread waits before it tries a file again that could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A file that is open for appending.
pub(crate) struct OpenFile {
    file: File,
    path: PathBuf,
}

/// The thread that writes a file. It ends when the channel ends.
pub(crate) struct FileWriter {
    /// `None` while it is waited for.
    finished: Option<mpsc::Receiver<()>>,
    /// Set when nobody waits for the file any more.
    gives_up: Arc<AtomicBool>,
}

impl OpenFile {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes everything that comes.
    pub(crate) fn write_on_thread(self, rows: FailedRows) -> std::io::Result<FileWriter> {
        let (done, finished) = mpsc::channel();
        let gives_up = Arc::new(AtomicBool::new(false));
        let give_up = Arc::clone(&gives_up);
        std::thread::Builder::new().name("batchsql-dead-letters".to_owned()).spawn(move || {
            self.write_all(rows, &give_up);
            // Nobody may wait any more.
            let _ = done.send(());
        })?;
        Ok(FileWriter { finished: Some(finished), gives_up })
    }

    fn write_all(mut self, mut rows: FailedRows, give_up: &AtomicBool) {
        while let Some(first) = rows.blocking_recv() {
            // What is there now is one burst; each row keeps its room until the burst is on disk.
            let mut burst = vec![first];
            let mut lines = line(&burst[0]);
            while burst.len() < 1000
                && let Some(letter) = rows.try_recv()
            {
                lines.push_str(&line(&letter));
                burst.push(letter);
            }
            self.append(lines.as_bytes(), give_up);
        }
    }

    /// Appends and syncs, for as long as it takes. When the system says after a failed sync that the next
    /// one was fine, that is believed.
    fn append(&mut self, mut lines: &[u8], give_up: &AtomicBool) {
        loop {
            let error = match self.file.write(lines) {
                Ok(0) if !lines.is_empty() => std::io::ErrorKind::WriteZero.into(),
                Ok(written) => {
                    lines = &lines[written..];
                    if !lines.is_empty() {
                        continue;
                    }
                    match self.file.sync_data() {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            if give_up.load(Ordering::Relaxed) {
                return;
            }
            tracing::error!(path = %self.path.display(), %error, "the dead-letter file cannot be written; trying again");
            std::thread::sleep(TRY_AGAIN);
        }
    }
}

impl FileWriter {
    /// Waits until everything is written, after the channel has ended; after `patience` the rest is given
    /// up.
    pub(crate) async fn finish(mut self, patience: Duration) {
        let Some(finished) = self.finished.take() else { return };
        // On a thread, so that the time is real: the clock of the runtime may be a paused one, in tests.
        let waited = tokio::task::spawn_blocking(move || finished.recv_timeout(patience)).await;
        if matches!(waited, Ok(Err(RecvTimeoutError::Timeout))) {
            tracing::error!("the dead-letter file could not be written; the rows left are lost to it");
        }
    }
}

/// Nobody waits any more: a file that cannot be written is not tried again.
impl Drop for FileWriter {
    fn drop(&mut self) {
        self.gives_up.store(true, Ordering::Relaxed);
    }
}

/// One row as one line.
fn line(letter: &DeadLetter) -> String {
    let failed = letter.failed_row();
    let row = failed.row();
    let (mut values, mut types) = (Map::new(), Map::new());
    for (column, (name, value)) in row.schema().columns().iter().zip(row.iter()) {
        values.insert(name.to_owned(), json_value(value));
        types.insert(name.to_owned(), column.column_type().name().into());
    }
    let line = json!({
        "time": TimestampTz::now().to_string(),
        "outcome": letter.outcome().kind().name(),
        "table": row.schema().table_display(),
        "class": failed.class().map(crate::ErrorClass::name),
        "code": failed.code(),
        "error": failed.error().map(ToString::to_string),
        "attempts": failed.attempts(),
        "row": values,
        "types": types,
    });
    format!("{line}\n")
}

fn json_value(value: ValueRef<'_>) -> JsonValue {
    match value {
        ValueRef::Null => JsonValue::Null,
        ValueRef::Bool(v) => v.into(),
        ValueRef::I16(v) => v.into(),
        ValueRef::I32(v) => v.into(),
        ValueRef::I64(v) => v.into(),
        ValueRef::U64(v) => v.into(),
        // `NaN` and infinity have no JSON number.
        ValueRef::F32(v) if !v.is_finite() => v.to_string().into(),
        ValueRef::F64(v) if !v.is_finite() => v.to_string().into(),
        ValueRef::F32(v) => v.into(),
        ValueRef::F64(v) => v.into(),
        ValueRef::Decimal(v) | ValueRef::Text(v) | ValueRef::Json(v) => v.into(),
        ValueRef::Bytes(v) => hex("\\x", v).into(),
        ValueRef::Uuid(v) => {
            let digits = hex("", &v);
            let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &digits[group]);
            groups.join("-").into()
        }
        ValueRef::Date(v) => v.to_string().into(),
        ValueRef::Time(v) => v.to_string().into(),
        ValueRef::Timestamp(v) => v.to_string().into(),
        ValueRef::TimestampTz(v) => v.to_string().into(),
    }
}

fn hex(prefix: &str, bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(prefix.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
