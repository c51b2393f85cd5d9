//! Owns `batchsql log`: what is in the folder of a durable intake, whether it is whole, and the rows that wait.
//! Must not know its bytes.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};
use std::path::Path;

use batchsql::durable::tools::{Export, IntakeFolder, Recovery, UnfinishedSegment};

use crate::draft_file::DraftFile;
use crate::exit::{Exit, Failure};
use crate::output::Output;

fn open(folder: &Path, in_use: bool) -> Result<IntakeFolder, Failure> {
    if in_use { Ok(IntakeFolder::in_use(folder)) } else { IntakeFolder::lock(folder).map_err(Failure::unavailable) }
}

/// Lists the files and the rows that wait.
///
/// # Errors
/// There is no log in the folder, or a program uses it.
pub(crate) fn inspect(folder: &Path, in_use: bool) -> Result<Exit, Failure> {
    let inspection = open(folder, in_use)?.inspect().map_err(Failure::unavailable)?;
    let mut out = Output::lock();
    for file in &inspection.files {
        let settled = if file.is_settled { ", done" } else { "" };
        let _ = writeln!(out, "{}: {} bytes, {} blocks{settled}", file.name, file.bytes, file.blocks);
    }
    for state in &inspection.recovery.partitions {
        let (table, partition, waiting) = (&state.table_name, state.partition, state.unsettled);
        let done = state.next - 1 - waiting;
        let _ = writeln!(out, "{table}, partition {partition}: {waiting} rows wait, {done} are done");
    }
    Ok(report(&mut out, &inspection.recovery))
}

/// Reads every file with its checksums.
///
/// # Errors
/// As [`inspect`].
pub(crate) fn verify(folder: &Path, in_use: bool) -> Result<Exit, Failure> {
    let recovery = open(folder, in_use)?.verify().map_err(Failure::unavailable)?;
    Ok(report(&mut Output::lock(), &recovery))
}

/// Which rows are exported.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    Waiting,
    /// Also those that have ended and are still in the log.
    All,
}

/// Writes the rows to a new file, or to standard output. The file is made when it has all of them; with `partial` also if
/// some cannot be read.
///
/// # Errors
/// As [`inspect`], or the rows cannot be written. There is no file then.
pub(crate) fn export(
    (folder, which): (&Path, Which),
    output: Option<&Path>,
    partial: bool,
    in_use: bool,
) -> Result<Exit, Failure> {
    let folder = (open(folder, in_use)?, which);
    let Some(path) = output else {
        let mut out = Printed { out: io::stdout().lock(), is_closed: false };
        let exported = match write(&folder, &mut out) {
            // Whoever closes a pipe has read enough.
            Err(_) if out.is_closed => return Ok(Exit::Done),
            exported => exported.map_err(Failure::unavailable)?,
        };
        let found = say(&exported, &format!("{} rows were written", exported.rows));
        return Ok(found);
    };
    let refused = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::mistake(format!("{} is there already; choose a new name", path.display())),
        _ => not_made(path, &error),
    };
    let mut file = DraftFile::create_new(path).map_err(refused)?;
    let exported = write(&folder, &mut file).map_err(|error| not_made(path, &error))?;
    if exported.is_whole() || partial {
        file.publish().map_err(refused)?;
        return Ok(say(&exported, &format!("{} rows were written", exported.rows)));
    }
    let rows = exported.rows;
    let text = format!(
        "{} was not made, because rows are missing; with --partial it gets the {rows} rows that can be read",
        path.display()
    );
    Ok(say(&exported, &text))
}

/// Standard output, and whether it is a pipe that its reader has closed.
struct Printed {
    out: StdoutLock<'static>,
    is_closed: bool,
}

impl Printed {
    fn note<T>(&mut self, written: io::Result<T>) -> io::Result<T> {
        written.inspect_err(|error| self.is_closed |= error.kind() == ErrorKind::BrokenPipe)
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.note(flushed)
    }
}

fn not_made(path: &Path, error: &impl Display) -> Failure {
    Failure::unavailable(format!("{} was not made: {error}", path.display()))
}

/// Why rows cannot be written: the log, or the output.
fn write((folder, which): &(IntakeFolder, Which), out: impl Write) -> Result<Export, String> {
    let mut out = BufWriter::new(out);
    let exported = match which {
        Which::Waiting => folder.export(&mut out),
        Which::All => folder.export_all(&mut out),
    };
    let exported = exported.map_err(|error| error.to_string())?;
    out.flush().map_err(|error| format!("the rows cannot be written: {error}"))?;
    Ok(exported)
}

/// Says what was found. Standard output may have the rows.
fn say(exported: &Export, result: &str) -> Exit {
    let mut says = io::stderr().lock();
    for block in &exported.unreadable {
        let (table, partition, first, last) = (&block.table, block.partition, block.first, block.last);
        let reason = &block.reason;
        let _ = writeln!(says, "not readable: rows {first} to {last} of {table}, partition {partition}: {reason}");
    }
    let _ = writeln!(says, "{result}");
    let found = report(&mut says, &exported.recovery);
    if exported.is_whole() { found } else { Exit::Failed }
}

fn report(out: &mut impl Write, recovery: &Recovery) -> Exit {
    for damage in &recovery.damages {
        let _ = writeln!(out, "damaged: {} from byte {} on, {} bytes", damage.file, damage.offset, damage.length);
    }
    for UnfinishedSegment { file, length, .. } in &recovery.unfinished_segments {
        let start = if *length == 0 { "removes it" } else { "moves it to the folder quarantine" };
        let _ = writeln!(out, "unfinished: {file}, {length} bytes and no header; a start {start}");
    }
    for gap in &recovery.gaps {
        let state =
            recovery.partitions.iter().find(|state| (state.table, state.partition) == (gap.table, gap.partition));
        let table = state.map_or("a table whose name is lost", |state| &state.table_name);
        let _ = writeln!(out, "missing: rows {} to {} of {table}, partition {}", gap.first, gap.last, gap.partition);
    }
    if !recovery.gaps.is_empty() {
        let _ = writeln!(
            out,
            "restore the folder, or start once with `batchsql run CONFIG --accept-log-gap`, which gives the missing rows up"
        );
    }
    let waiting: u64 = recovery.partitions.iter().map(|state| state.unsettled).sum();
    let is_whole = recovery.damages.is_empty() && recovery.gaps.is_empty();
    let is_finished = recovery.unfinished_segments.is_empty();
    if !is_finished {
        let _ = writeln!(
            out,
            "a crash while a segment is begun leaves it unfinished, without rows; if something has cut or emptied it, rows are missing: restore \
             the folder"
        );
    }
    let result = match (is_whole, is_finished) {
        (false, _) => "the log is damaged",
        (true, false) => "rows may be missing",
        (true, true) => "the log is whole",
    };
    let (segments, blocks) = (recovery.segments, recovery.blocks);
    let _ = writeln!(out, "{result}: {segments} segments, {blocks} blocks, {waiting} rows wait");
    if is_whole && is_finished { Exit::Done } else { Exit::Failed }
}
