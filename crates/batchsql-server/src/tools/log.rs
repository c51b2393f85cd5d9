//! Owns `batchsql log`: what is in the folder of a durable intake, and whether it is whole.
//! Must not know its bytes.

use std::io::Write;
use std::path::Path;

use batchsql::durable::tools::{IntakeFolder, Recovery};

use crate::exit::{Exit, Failure};

fn open(folder: &Path, in_use: bool) -> Result<IntakeFolder, Failure> {
    if in_use { Ok(IntakeFolder::in_use(folder)) } else { IntakeFolder::lock(folder).map_err(Failure::unavailable) }
}

/// Lists the files and the rows that wait.
///
/// # Errors
/// There is no log in the folder, or a program uses it.
pub(crate) fn inspect(folder: &Path, in_use: bool) -> Result<Exit, Failure> {
    let inspection = open(folder, in_use)?.inspect().map_err(Failure::unavailable)?;
    let mut out = std::io::stdout().lock();
    for file in &inspection.files {
        let settled = if file.is_settled { ", done" } else { "" };
        let _ = writeln!(out, "{}: {} bytes, {} blocks{settled}", file.name, file.bytes, file.blocks);
    }
    for state in &inspection.recovery.partitions {
        let waiting = state.next - 1 - state.settled_up_to;
        let (table, partition) = (&state.table_name, state.partition);
        let _ = writeln!(out, "{table}, partition {partition}: {waiting} rows wait, {} are done", state.settled_up_to);
    }
    Ok(report(&inspection.recovery))
}

/// Reads every file with its checksums.
///
/// # Errors
/// As [`inspect`].
pub(crate) fn verify(folder: &Path, in_use: bool) -> Result<Exit, Failure> {
    let recovery = open(folder, in_use)?.verify().map_err(Failure::unavailable)?;
    Ok(report(&recovery))
}

fn report(recovery: &Recovery) -> Exit {
    for damage in &recovery.damages {
        println!("damaged: {} from byte {} on, {} bytes", damage.file, damage.offset, damage.length);
    }
    for gap in &recovery.gaps {
        println!("missing: rows {} to {} of partition {}", gap.first, gap.last, gap.partition);
    }
    let waiting: u64 = recovery.partitions.iter().map(|state| state.next - 1 - state.settled_up_to).sum();
    let is_whole = recovery.damages.is_empty() && recovery.gaps.is_empty();
    let result = if is_whole { "the log is whole" } else { "the log is damaged" };
    println!("{result}: {} segments, {} blocks, {waiting} rows wait", recovery.segments, recovery.blocks);
    if is_whole { Exit::Done } else { Exit::Failed }
}
