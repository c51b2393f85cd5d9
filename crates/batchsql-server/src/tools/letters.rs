//! Owns `batchsql dead-letters`: what is in a dead-letter file, and writing its rows again. `foreign` has files of messages.
//! Must not know how rows come into it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use batchsql::{Action, BatchSql, DeadLetterLine, DeadLetterReader, OutcomeKind, Replay, Schema};

use crate::config::read;
use crate::config::sections::Rule;
use crate::database::{self, ConnectFor};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::output::Output;
use crate::signals::Signals;
use crate::tools::{foreign, in_use, marked};
use crate::words::of_program;

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| Failure::unavailable(format!("{}: {error}", path.display()))
}

/// Counts the rows by table, outcome and code, and those that a replay has written.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn list(path: &Path) -> Result<Exit, Failure> {
    if foreign::is_in(path).map_err(unreadable(path))? {
        return foreign::list(path).map_err(unreadable(path));
    }
    let mut counts: BTreeMap<(String, &'static str, String), u64> = BTreeMap::new();
    let mark = marked::look(path).map_err(unreadable(path))?;
    let (mut broken, mut replayed) = (marked::Broken::default(), 0_u64);
    let mut letters = DeadLetterReader::open(path).map_err(unreadable(path))?;
    for entry in &mut letters {
        let (position, letter) = entry.map_err(unreadable(path))?;
        replayed += u64::from(mark.has_passed(position));
        match letter {
            Ok(letter) => {
                let code = letter.code().unwrap_or("-").to_owned();
                *counts.entry((letter.table().to_string(), letter.outcome().name(), code)).or_default() += 1;
            }
            Err(error) => broken.add(position, error),
        }
    }
    let total: u64 = counts.values().sum();
    let mut out = Output::lock();
    let _ = writeln!(out, "{:>8}  {:24} {:12} code", "rows", "table", "outcome");
    for ((table, outcome, code), count) in &counts {
        let _ = writeln!(out, "{count:>8}  {table:24} {outcome:12} {code}");
    }
    let _ = writeln!(out, "{total:>8}  in {}", path.display());
    mark.print(&mut out, replayed, "replayed");
    marked::print_unfinished(&mut out, letters.unfinished());
    Ok(broken.print(&mut out))
}

/// Prints rows: when, what became of them and why; with their values only if they are asked for.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn show(path: &Path, limit: usize, values: bool) -> Result<Exit, Failure> {
    if foreign::is_in(path).map_err(unreadable(path))? {
        return foreign::show(path, limit, values).map_err(unreadable(path));
    }
    let mut out = Output::lock();
    let mut letters = DeadLetterReader::open(path).map_err(unreadable(path))?;
    for entry in letters.by_ref().take(limit) {
        let (position, letter) = entry.map_err(unreadable(path))?;
        let _ = match &letter {
            Ok(letter) => writeln!(out, "byte {position}: {}", shown(letter)),
            Err(error) => writeln!(out, "byte {position}: it cannot be read: {error}"),
        };
        if Output::is_over() {
            return Ok(Exit::Done);
        }
        if values && letter.is_ok() {
            let line = line_at(path, position).map_err(unreadable(path))?;
            let document: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let _ = writeln!(out, "    {}", document["row"]);
        }
    }
    marked::print_unfinished(&mut out, letters.unfinished());
    Ok(Exit::Done)
}

fn shown(letter: &DeadLetterLine) -> String {
    let columns: Vec<&str> = letter.columns().map(|(name, _)| name).collect();
    let code = letter.code().map(|code| format!(" [{code}]")).unwrap_or_default();
    let error = letter.error().unwrap_or("no error");
    let (time, table, outcome, attempts) = (letter.time(), letter.table(), letter.outcome().name(), letter.attempts());
    format!("{time} {table} {outcome}{code} after {attempts} attempts: {error}; columns {}", columns.join(", "))
}

fn line_at(path: &Path, position: u64) -> std::io::Result<String> {
    use std::io::{BufRead, BufReader, Seek, SeekFrom};
    let mut file = BufReader::new(std::fs::File::open(path)?);
    file.seek(SeekFrom::Start(position))?;
    let mut line = String::new();
    file.read_line(&mut line)?;
    Ok(line)
}

/// Writes the rows again, by the tables of the configuration. Those that are written are not tried by a later run.
///
/// # Errors
/// The configuration is wrong, the database cannot be used, or the file cannot be read.
pub(crate) async fn replay(path: &Path, config: &Path, unknown: bool, delete: bool) -> Result<Exit, Failure> {
    if foreign::is_in(path).map_err(unreadable(path))? {
        return republish(path, config, delete).await;
    }
    let mut signals = Signals::new().map_err(Failure::unavailable)?;
    let settings = read::read(config)?;
    logging::start_quiet(&settings.log).map_err(Failure::mistake)?;
    if let Some(file) = settings.dead_letters_file() {
        in_use::refuse(path, &file)?;
    }
    let database = settings.database().map_err(Failure::mistake)?;
    let connect_for = ConnectFor::new(database.connect_for);
    let sink = database::open(database, &settings.tables, connect_for).await?;
    let mut schemas: Vec<(Schema, Rule)> = Vec::new();
    for table in &settings.tables {
        let target = connect_for.table(Some(&sink), table).await;
        let target = target.map_err(|error| Failure::of_target(table.name.get_ref(), &error))?;
        schemas.push((target.schema, table.rule));
    }
    let db = BatchSql::builder(sink).config(settings.pipeline.clone()).start().map_err(Failure::mistake)?;
    let row_of = |letter: &DeadLetterLine| {
        // A row that may be in the table would be there twice.
        let doubles = |rule: Rule| letter.outcome() == OutcomeKind::Unknown && rule == Rule::Insert && !unknown;
        let known = schemas.iter().find(|(schema, _)| schema.table() == letter.table());
        match known {
            None => Err("no table of the configuration has its name; add it to [[tables]]".into()),
            Some((_, rule)) if doubles(*rule) => {
                Err("it may be in the table already, and its rule is insert; look it up, then use --unknown".into())
            }
            Some((_, Rule::Insert)) if letter.action() == Action::Delete => {
                Err("it deletes a row, and its table has no key; give it a `key` and the rule `delete` for this replay"
                    .into())
            }
            Some((schema, rule)) if letter.action() == Action::Delete && *rule != Rule::Delete => {
                Ok(Some(letter.row(&schema.deletion()?)?))
            }
            Some((schema, _)) => Ok(Some(letter.row(schema)?)),
        }
    };
    let replay = Replay::new(path);
    let replayed = tokio::select! {
        replayed = replay.clone().run(&db, row_of) => replayed,
        signal = signals.next() => return Err(Failure::failed(format!("{signal}: stopped; run the command again to go on"))),
    };
    let report = replayed.map_err(Failure::unavailable)?;
    db.close(Duration::from_secs(10)).await;
    let kinds = [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded];
    let counts: Vec<String> =
        kinds.iter().map(|kind| format!("{} {}", report.counts.get(*kind), kind.name())).collect();
    println!("{}: {}, {} left", path.display(), counts.join(", "), report.failed.len());
    for failure in report.failed.iter().take(20) {
        println!("  byte {}: {}", failure.position, of_program(&failure.reason.to_string()));
    }
    if !report.is_complete() {
        println!("those that are left are tried by the next replay of this file");
        return Ok(Exit::Failed);
    }
    if delete {
        replay.delete().await.map_err(unreadable(path))?;
        println!("{} is deleted", path.display());
    }
    Ok(Exit::Done)
}

/// Publishes the messages of a file of them again.
#[cfg(feature = "nats")]
async fn republish(path: &Path, config: &Path, delete: bool) -> Result<Exit, Failure> {
    crate::tools::republish::run(path, config, delete).await
}

#[cfg(not(feature = "nats"))]
async fn republish(_: &Path, _: &Path, _: bool) -> Result<Exit, Failure> {
    Err(Failure::mistake("this program was built without NATS; build it with the feature `nats`"))
}
