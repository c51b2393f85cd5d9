//! Owns `batchsql load`: the files of a command line, with a progress bar.
//! Must not know how a file is loaded.

use std::env::VarError;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use batchsql::{BatchSql, DynSink, OutcomeKind, PipelineConfig, Sink as _};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::timeout;

use crate::cli::Load;
use crate::config::problem::SourceText;
use crate::config::read;
use crate::config::secret::Secret;
use crate::config::settings::{Database, Settings};
use crate::config::source_checks::adds_twice;
use crate::config::taken_files::TakenFiles;
use crate::exit::{Exit, Failure, Remedy};
use crate::load::file::Input;
use crate::load::layout::BLOCK;
use crate::load::loading::{Job, Loaded};
use crate::load::mark::Unsaved;
use crate::load::marked::mark_of;
use crate::load::reader::check_fields;
use crate::load::rejects;
use crate::load::stop::{LAST_STEP, Stop, Stopper, stopped};
use crate::logging;
use crate::same_file::{is_same, resolved};
use crate::signals::Signals;
use crate::table::target;
use crate::{database, database_id};

/// Loads the files one after the other.
///
/// # Errors
/// The command line or the configuration is wrong, or a load could not go on.
pub(crate) async fn run(load: Load) -> Result<Exit, Failure> {
    let mut signals = Signals::new().map_err(Failure::unavailable)?;
    let settings = settings(&load)?;
    check_rejects(&load, &settings)?;
    logging::start_quiet(&settings.log).map_err(Failure::mistake)?;
    // Without a configuration there is only one, with a name that is made of the one given.
    let name = load.table.as_ref().filter(|_| load.config.is_some());
    let table = match (name, &settings.tables[..]) {
        (Some(name), _) => settings.table(name).ok_or_else(|| {
            let known = settings.table_names().join(", ");
            Failure::mistake(format!("there is no table `{name}` in the configuration; it has {known}"))
        })?,
        (None, [only]) => only,
        (None, _) => {
            let known = settings.table_names().join(", ");
            return Err(Failure::mistake(format!("say which table with --table: {known}")));
        }
    };
    let database = settings.database().map_err(Failure::mistake)?;
    let connect_for = database::ConnectFor::new(database.connect_for);
    let sink = database::open(database, &settings.tables, connect_for).await?;
    let target = connect_for.table(Some(&sink), table).await;
    let target = Arc::new(target.map_err(|error| Failure::of_target(table.name.get_ref(), &error))?);
    if (load.at_least_once || !sink.keeps_positions()) && target.schema.counts_repeats() {
        return Err(Failure::mistake(adds_twice(&target.name)));
    }
    let delimiter = delimiter(&load)?;
    tokio::select! {
        checked = check_files(&load, &target, delimiter) => checked?,
        signal = signals.next() => return Err(Failure::failed(format!("{signal}: stopped; nothing was loaded"))),
    }
    let config = large_batches(settings.pipeline.clone());
    let db = BatchSql::builder(sink.clone()).config(config).start().map_err(Failure::mistake)?;
    connect_for.prepared(&db, &target).await.map_err(|error| Failure::of_target(&target.name, &error))?;
    let identity = database_id::of(database);
    let mut exit = Exit::Done;
    for (number, path) in load.files.iter().enumerate() {
        let stopper = Stopper::new();
        let mut loading = pin!(one(&load, (&db, &sink), &target, &identity, path, stopper.watched()));
        let loaded = tokio::select! {
            loaded = &mut loading => loaded,
            signal = signals.next() => {
                stopper.stop();
                let ended = tokio::select! {
                    ended = timeout(LAST_STEP, loading) => ended.ok(),
                    _ = signals.next() => None,
                };
                after_signal(signal, ended, number + 1 == load.files.len())
            }
        };
        let loaded = loaded.map_err(|failure| of_several(failure, &load.files, number))?;
        if loaded.rejected > 0 {
            exit = Exit::Failed;
        }
    }
    db.close(Duration::from_secs(10)).await;
    Ok(exit)
}

/// How a file ends that was loaded when a signal came. `None`: what was being written did not end in its time.
fn after_signal(signal: &str, ended: Option<Result<Loaded, Failure>>, is_last: bool) -> Result<Loaded, Failure> {
    match ended {
        Some(Ok(loaded)) if is_last => Ok(loaded),
        // Another run would fail too.
        Some(Err(failure)) if failure.remedy != Remedy::LaterRun => Err(failure),
        _ => Err(Failure::failed(format!("{signal}: stopped; run the command again to go on"))),
    }
}

/// A file has many rows at once, so the rows of a transaction are as many as the database likes.
fn large_batches(config: PipelineConfig) -> PipelineConfig {
    const ROWS: usize = BLOCK as usize;
    let (flush_size, buffer) = (config.flush_size.max(ROWS), config.buffer_size.max(4 * ROWS));
    let rows = config.max_batch_rows.map(|rows| rows.max(flush_size));
    let config = config.flush_size(flush_size).buffer_size(buffer).flush_interval(Duration::from_millis(5));
    match rows {
        Some(rows) => config.max_batch_rows(rows),
        None => config,
    }
}

fn settings(load: &Load) -> Result<Settings, Failure> {
    if let Some(path) = &load.config {
        return Ok(read::read(path)?);
    }
    let (Some(dsn), Some(table)) = (dsn(load)?, &load.table) else {
        return Err(Failure::mistake("say where to: --config FILE, or --database DSN --table NAME"));
    };
    // What stands there may be a part of a password.
    if dsn.contains("${") {
        let text = "the DSN of --database or BATCHSQL_DATABASE has a `${`, and variables are replaced in configuration files only; \
                    write the value itself (the text `${` in a password is %24%7B)";
        return Err(Failure::mistake(text));
    }
    let database = Database { dsn: Secret::new(&dsn), connect_for: Duration::ZERO };
    if database.is_redis() {
        let text = "Redis has no catalogue of columns; declare them in a configuration: `columns` of the table, and --config FILE";
        return Err(Failure::mistake(text));
    }
    // A configuration of the arguments, so that both are checked alike. A text of JSON is a text of TOML.
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let mut toml = format!("[database]\ndsn = {}\n[[tables]]\nname = {}\n", text(&dsn), text(&name_of(table)));
    toml.push_str(&format!("table = {}\n", text(table)));
    if let Some(rule) = &load.rule {
        toml.push_str(&format!("rule = {}\n", text(rule)));
    }
    if !load.key.is_empty() {
        let key: Vec<String> = load.key.iter().map(|column| text(column)).collect();
        toml.push_str(&format!("key = [{}]\n", key.join(", ")));
    }
    if load.ignore_unknown {
        toml.push_str("unknown_fields = \"ignore\"\n");
    }
    let source = SourceText::of_options(toml);
    let mut settings = read::parse_options(&source).map_err(|problems| Failure::mistake(format!("{problems}")))?;
    for named in &mut settings.tables {
        *named.name.get_mut() = table.clone();
    }
    Ok(settings)
}

/// The database of `--database`, or else of the environment, which a configuration takes the place of.
fn dsn(load: &Load) -> Result<Option<String>, Failure> {
    if load.database.is_some() {
        return Ok(load.database.clone());
    }
    match std::env::var("BATCHSQL_DATABASE") {
        Ok(dsn) => Ok(Some(dsn).filter(|dsn| !dsn.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(Failure::mistake("the variable BATCHSQL_DATABASE is not UTF-8; correct it"))
        }
    }
}

/// Names in the configuration have no quotes or spaces.
fn name_of(table: &str) -> String {
    table
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || "_-.".contains(letter) { letter } else { '_' })
        .collect()
}

async fn one(
    load: &Load,
    (db, sink): (&BatchSql, &DynSink),
    target: &Arc<target::Target>,
    database: &str,
    path: &Path,
    mut stop: Stop,
) -> Result<Loaded, Failure> {
    let bar = ProgressBar::new(std::fs::metadata(path).map_or(0, |found| found.len()));
    let style = "{prefix} {msg:8} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(style).expect("a test shows it").progress_chars("=> "));
    bar.set_prefix(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    bar.set_message("reading");
    let (counted, file, format) = (bar.clone(), path.to_owned(), load.format);
    let opening = tokio::task::spawn_blocking(move || Input::open(&file, format, |bytes| counted.inc(bytes)));
    let opened = tokio::select! {
        opened = opening => opened,
        () = stop.wanted() => return Err(stopped()),
    };
    let opened = opened.map_err(|error| Failure::failed(format!("the file could not be read: {error}")))?;
    let input = opened?;
    bar.set_length(input.bytes);
    bar.set_position(0);
    bar.reset_eta();
    bar.set_message("loading");
    let begin = Instant::now();
    let rejects = rejects_of(load, path);
    let job = Job {
        db: db.clone(),
        sink: sink.clone(),
        target: Arc::clone(target),
        input,
        delimiter: delimiter(load)?,
        rejects: rejects.clone(),
        most_rejects: load.max_rejects,
        database: database.to_owned(),
        at_least_once: load.at_least_once,
        name: load.again.clone(),
        steps: db.max_steps(),
        unsaved: Unsaved::default(),
        stop,
    };
    let loaded = job.run(|bytes| bar.set_position(bytes)).await;
    bar.finish_and_clear();
    let loaded = loaded?;
    println!("{}: {}", path.display(), summary(&loaded, &rejects, begin.elapsed()));
    Ok(loaded)
}

fn delimiter(load: &Load) -> Result<u8, Failure> {
    let delimiter = u8::try_from(load.delimiter).ok().filter(u8::is_ascii);
    delimiter.ok_or_else(|| Failure::mistake("--delimiter is one character of ASCII"))
}

/// Looks at all files before the first row is written, so that a mistake in one of them leaves nothing half done.
async fn check_files(load: &Load, target: &Arc<target::Target>, delimiter: u8) -> Result<(), Failure> {
    for path in &load.files {
        let (file, format, target) = (path.clone(), load.format, Arc::clone(target));
        let checked =
            tokio::task::spawn_blocking(move || check_fields(&Input::look(&file, format)?, &target, delimiter));
        let checked = checked.await.map_err(|error| Failure::failed(format!("the file could not be read: {error}")))?;
        checked.map_err(|failure| match failure.exit {
            // Its content is not what its name says, and nothing was done.
            Exit::Failed => Failure::mistake(failure.text),
            _ => failure,
        })?;
    }
    Ok(())
}

/// A failure of the file with this number says which others are not loaded; the summary of those before it was printed.
fn of_several(mut failure: Failure, files: &[PathBuf], number: usize) -> Failure {
    let others: Vec<String> = files[number + 1..].iter().map(|path| path.display().to_string()).collect();
    if !others.is_empty() {
        failure.text.push_str(&format!("; not loaded either: {}", others.join(", ")));
    }
    if number > 0 && failure.exit == Exit::Mistake {
        // Files before it are loaded.
        failure.exit = Exit::Failed;
    }
    failure
}

fn rejects_of(load: &Load, path: &Path) -> PathBuf {
    load.rejects.clone().unwrap_or_else(|| beside(path, ".rejects.ndjson"))
}

/// Refuses a file of rejected records that is no file, or one with another use: lines would be added to it.
fn check_rejects(load: &Load, settings: &Settings) -> Result<(), Failure> {
    let marks: Vec<PathBuf> = load.files.iter().map(|path| mark_of(path, load.again.as_deref())).collect();
    let read: Vec<&PathBuf> = load.files.iter().chain(&marks).collect();
    let taken = TakenFiles {
        configuration: load.config.as_deref(),
        database: settings.destination.catalogue(),
        durable: settings.durable.as_ref().map(|durable| &*durable.folder),
    };
    let letters = settings.dead_letters_file();
    let is_letters = |path: &Path| {
        letters.as_ref().is_some_and(|letters| is_same(path, letters) || resolved(path) == resolved(letters))
    };
    for path in &load.files {
        if is_letters(path) {
            return Err(Failure::mistake(format!(
                "{} is the file of dead letters of the configuration; write its rows again with `batchsql dead-letters replay`",
                path.display()
            )));
        }
        let rejects = rejects_of(load, path);
        rejects::check(&rejects).map_err(|error| rejects::failure(&rejects, &error))?;
        let is_read = |other: &&&PathBuf| rejects == ***other || is_same(&rejects, other);
        let what = taken
            .uses(&rejects)
            .or_else(|| is_letters(&rejects).then(|| "is the file of dead letters of the configuration".to_owned()))
            .or_else(|| Some(format!("is {}, which is read", read.iter().find(is_read)?.display())));
        if let Some(what) = what {
            return Err(Failure::mistake(format!(
                "the file of rejected records {} {what}; name another one with --rejects",
                rejects.display()
            )));
        }
    }
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

pub(crate) fn summary(loaded: &Loaded, rejects: &Path, took: Duration) -> String {
    let Loaded { records, before, counts, rejected } = loaded;
    let mut parts = vec![format!("{records} records")];
    if *before >= *records && *records > 0 {
        parts.push("already loaded".to_owned());
    } else if *before > 0 {
        parts.push(format!("{before} of them by an earlier run"));
    }
    for kind in [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded] {
        if counts.get(kind) > 0 {
            parts.push(format!("{} {}", counts.get(kind), kind.name()));
        }
    }
    if *rejected > 0 {
        parts.push(format!("{rejected} rejected, see {}", rejects.display()));
    }
    let rows = records.saturating_sub(*before);
    if rows > 0 {
        parts.push(format!("{:.0} records per second", rows as f64 / took.as_secs_f64().max(0.001)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use batchsql::OutcomeCounts;
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// A block is what a kill repeats where the position is in a file.
    #[test]
    fn the_help_says_how_many_records_a_kill_repeats() {
        let mut command = Cli::command();
        let load = command.find_subcommand_mut("load").unwrap();
        let help = load.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let repeated = format!("up to {},000 records are written again after a kill", BLOCK / 1000);
        assert_eq!(help.matches(&repeated).count(), 2, "of Redis, and of --at-least-once: {help}");
    }

    /// Whoever runs it again would meet the reason only then.
    #[test]
    fn a_failure_of_its_own_is_said_after_a_signal_too() {
        let after = |ended, is_last| after_signal("SIGINT", ended, is_last).map(|loaded| loaded.records);
        let said = |ended, is_last| after(ended, is_last).map_err(|failure| (failure.exit, failure.text));
        let failure = |failure: Failure| Some(Err(failure));
        let loaded = || {
            let counts = OutcomeCounts::default();
            Some(Ok(Loaded { records: 7, before: 0, counts, rejected: 0 }))
        };
        let stopped_text = "SIGINT: stopped; run the command again to go on".to_owned();
        assert_eq!(said(loaded(), true), Ok(7));
        assert_eq!(said(loaded(), false), Err((Exit::Failed, stopped_text.clone())), "others are not loaded");
        assert_eq!(said(failure(stopped()), true), Err((Exit::Failed, stopped_text.clone())));
        assert_eq!(said(None, true), Err((Exit::Failed, stopped_text)));
        let full = || failure(Failure::of_file_beside("the disk is full"));
        for is_last in [true, false] {
            assert_eq!(said(full(), is_last), Err((Exit::Unavailable, "the disk is full".to_owned())));
        }
        let rejects = failure(Failure::failed("more than 1000 rejected"));
        assert_eq!(said(rejects, true), Err((Exit::Failed, "more than 1000 rejected".to_owned())));
    }
}
