//! Looks into the folder of a durable intake: what is in it, whether it is whole, and the rows in it.
//!
//! ```sh
//! cargo run -p batchsql-durable --example durable_log -- inspect /var/lib/app/intake
//! cargo run -p batchsql-durable --example durable_log -- verify /var/lib/app/intake
//! cargo run -p batchsql-durable --example durable_log -- export /var/lib/app/intake > rows.ndjson
//! ```
//!
//! `export` prints the rows that wait, with `--all` also those that have ended and are kept, **with their values**. Stop the
//! program that uses the folder first, or add `--in-use`.
//! The exit code is 0 if the log is whole, 1 if something is damaged, unreadable or missing, or may be missing, and 2 if it cannot be
//! read at all.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use batchsql_durable::tools::{Export, IntakeFolder, Recovery, UnfinishedSegment};

const USAGE: &str = "usage: durable_log inspect|verify|export FOLDER [--in-use] [--all]

  inspect   lists the files, and how many rows wait in each partition
  verify    reads every file with its checksums
  export    prints the rows that wait as NDJSON, with their values
  --all     export: also the rows that have ended and are still in the log (DurableOptions::keep_for)
  --in-use  looks without the lock, while a program uses the folder: the newest rows may look torn";

/// What the arguments ask for.
enum Call {
    Run { verb: Verb, folder: PathBuf, is_in_use: bool },
    Help,
}

#[derive(Clone, Copy)]
enum Verb {
    Inspect,
    Verify,
    /// Those that wait.
    Export,
    ExportAll,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let result = match parse(&arguments) {
        Some(Call::Run { verb, folder, is_in_use }) => run(verb, &folder, is_in_use),
        Some(Call::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        None => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// A path may have any bytes.
fn parse(arguments: &[OsString]) -> Option<Call> {
    let is_option = |word: &&OsString| word.as_encoded_bytes().starts_with(b"-");
    let (options, words): (Vec<_>, Vec<_>) = arguments.iter().partition(is_option);
    let (mut is_in_use, mut is_all) = (false, false);
    for option in options {
        match option.to_str()? {
            "--in-use" => is_in_use = true,
            "--all" => is_all = true,
            "--help" | "-h" => return Some(Call::Help),
            _ => return None,
        }
    }
    let [verb, folder] = words[..] else { return None };
    let verb = match (verb.to_str()?, is_all) {
        ("inspect", false) => Verb::Inspect,
        ("verify", false) => Verb::Verify,
        ("export", false) => Verb::Export,
        ("export", true) => Verb::ExportAll,
        _ => return None,
    };
    Some(Call::Run { verb, folder: folder.into(), is_in_use })
}

/// Returns whether the log is whole.
fn run(verb: Verb, folder: &Path, is_in_use: bool) -> Result<bool, Box<dyn Error>> {
    let folder = if is_in_use { IntakeFolder::in_use(folder) } else { IntakeFolder::lock(folder)? };
    let mut out = BufWriter::new(io::stdout().lock());
    let (recovery, is_readable) = match verb {
        Verb::Inspect => (inspect(&folder, &mut out)?, true),
        Verb::Verify => (folder.verify()?, true),
        Verb::Export => report_export(folder.export(&mut out)?),
        Verb::ExportAll => report_export(folder.export_all(&mut out)?),
    };
    out.flush()?;
    Ok(report(&recovery) && is_readable)
}

fn inspect(folder: &IntakeFolder, out: &mut impl Write) -> Result<Recovery, Box<dyn Error>> {
    let inspection = folder.inspect()?;
    writeln!(out, "{} partitions per table", inspection.partitions)?;
    for file in &inspection.files {
        let settled = if file.is_settled { ", all of them settled" } else { "" };
        writeln!(out, "{}: {} bytes, {} blocks{settled}", file.name, file.bytes, file.blocks)?;
    }
    for state in &inspection.recovery.partitions {
        let (table, partition, settled, next) = (&state.table_name, state.partition, state.settled_up_to, state.next);
        let waiting = state.unsettled;
        writeln!(out, "{table}, partition {partition}: {waiting} rows wait; settled up to {settled}, next row {next}")?;
    }
    Ok(inspection.recovery)
}

fn report_export(export: Export) -> (Recovery, bool) {
    for block in &export.unreadable {
        let (table, partition, first, last) = (&block.table, block.partition, block.first, block.last);
        eprintln!("unreadable: rows {first} to {last} of {table}, partition {partition}: {}", block.reason);
    }
    eprintln!("{} rows", export.rows);
    (export.recovery, export.unreadable.is_empty())
}

/// To standard error, so that an export stays clean. Returns whether nothing is damaged or missing, for certain.
fn report(recovery: &Recovery) -> bool {
    for damage in &recovery.damages {
        eprintln!("damaged: {} from byte {} on, {} bytes", damage.file, damage.offset, damage.length);
    }
    for UnfinishedSegment { file, length, .. } in &recovery.unfinished_segments {
        let start = if *length == 0 { "removes it" } else { "moves it to the folder quarantine" };
        eprintln!("unfinished: {file} has {length} bytes and no header; a start {start}");
    }
    for gap in &recovery.gaps {
        let state =
            recovery.partitions.iter().find(|state| (state.table, state.partition) == (gap.table, gap.partition));
        let table = state.map_or("a table whose name is lost", |state| &state.table_name);
        eprintln!("missing: rows {} to {} of {table}, partition {}", gap.first, gap.last, gap.partition);
    }
    let is_whole = recovery.damages.is_empty() && recovery.gaps.is_empty();
    let is_finished = recovery.unfinished_segments.is_empty();
    let result = match (is_whole, is_finished) {
        (false, _) => "the log is damaged",
        (true, false) => {
            "rows are missing if something has cut or emptied the unfinished segment; a crash leaves it too"
        }
        (true, true) => "nothing is damaged or missing",
    };
    let (segments, blocks, torn) = (recovery.segments, recovery.blocks, recovery.torn_bytes);
    eprintln!("{segments} segments, {blocks} blocks, {torn} bytes of an unfinished write; {result}");
    is_whole && is_finished
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            return true;
        }
        next = error.source();
    }
    false
}
