//! Owns a folder as a source: files that match a pattern are loaded when they are complete.
//! Must not know how a file is loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use batchsql::{BatchSql, DynSink};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::settings::Files;
use crate::exit::{Exit, Failure, Remedy};
use crate::load::command::summary;
use crate::load::file::Input;
use crate::load::loading::{Job, Loaded};
use crate::table::target::Target;

/// Rejected records of one file, after which it is left to a person.
const MOST_REJECTS: u64 = 10_000;

/// What a file looked like when it was dealt with.
type Version = (u64, Option<SystemTime>);

/// Looks for files until it is dropped.
pub(crate) async fn run(
    id: &str,
    files: &Files,
    (db, sink): (&BatchSql, &DynSink),
    target: &Arc<Target>,
    database: &str,
) -> Exit {
    let mut done: HashMap<PathBuf, Version> = HashMap::new();
    let mut ticks = interval(files.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let pattern = files.pattern.clone();
        let found = tokio::task::spawn_blocking(move || find(&pattern)).await.unwrap_or_default();
        done.retain(|path, _| found.iter().any(|(known, _)| known == path));
        for (path, version) in found {
            if done.get(&path) == Some(&version) || !is_complete(version, files) {
                continue;
            }
            let begin = Instant::now();
            let rejects = rejects(&path);
            let input = match open(files, &path).await {
                Ok(input) => input,
                // Others may be read, so they do not wait for it.
                Err(Failure { exit: Exit::Unavailable, text, .. }) => {
                    tracing::warn!(source = id, "not loaded, trying again: {text}");
                    continue;
                }
                Err(Failure { text, .. }) => {
                    tracing::error!(source = id, "not loaded; correct it: {text}");
                    done.insert(path, version);
                    continue;
                }
            };
            match load(files, (db, sink), target, database, input, &rejects).await {
                Ok(loaded) => {
                    let text = summary(&loaded, &rejects, begin.elapsed());
                    if loaded.rejected == 0 {
                        tracing::info!(source = id, file = %path.display(), "loaded: {text}");
                    } else {
                        tracing::warn!(source = id, file = %path.display(), "loaded: {text}");
                    }
                    done.insert(path, version);
                }
                // Others do not need it.
                Err(Failure { remedy: Remedy::FileBeside, text, .. }) => {
                    tracing::warn!(source = id, file = %path.display(), "not loaded, trying again: {text}");
                }
                // It is tried again: the database may come back, or somebody repairs the table.
                Err(Failure { exit: Exit::Unavailable, text, .. } | Failure { remedy: Remedy::Table, text, .. }) => {
                    tracing::warn!(source = id, file = %path.display(), "not loaded, trying again: {text}");
                    // A later file may have later values of the same keys.
                    break;
                }
                Err(Failure { text, .. }) => {
                    tracing::error!(source = id, file = %path.display(), "not loaded; correct it, or change the file: {text}");
                    done.insert(path, version);
                }
            }
        }
    }
}

/// The files in the order of their names, without those that this program makes.
fn find(pattern: &str) -> Vec<(PathBuf, Version)> {
    let Ok(paths) = glob::glob(pattern) else { return Vec::new() };
    let own = [".rejects.ndjson", ".batchsql-load", ".tmp"];
    let is_own = |path: &Path| own.iter().any(|ending| path.to_string_lossy().ends_with(ending));
    let version = |path: PathBuf| {
        let found = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        Some((path, (found.len(), found.modified().ok())))
    };
    paths.filter_map(Result::ok).filter(|path| !is_own(path)).filter_map(version).collect()
}

fn is_complete((_, modified): Version, files: &Files) -> bool {
    let age = modified.map_or(files.unchanged_for, |modified| modified.elapsed().unwrap_or_default());
    age >= files.unchanged_for
}

fn rejects(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".rejects.ndjson");
    name.into()
}

async fn open(files: &Files, path: &Path) -> Result<Input, Failure> {
    let (file, format) = (path.to_owned(), files.format);
    let opened = tokio::task::spawn_blocking(move || Input::open(&file, format, |_| {})).await;
    opened.map_err(Failure::failed)?
}

async fn load(
    files: &Files,
    (db, sink): (&BatchSql, &DynSink),
    target: &Arc<Target>,
    database: &str,
    input: Input,
    rejects: &Path,
) -> Result<Loaded, Failure> {
    let job = Job {
        db: db.clone(),
        sink: sink.clone(),
        target: Arc::clone(target),
        input,
        delimiter: b',',
        rejects: rejects.to_owned(),
        most_rejects: MOST_REJECTS,
        database: database.to_owned(),
        at_least_once: files.at_least_once,
        name: None,
        // Rows of others are written too.
        steps: (db.max_steps() / 2).max(1),
    };
    job.run(|_| {}).await
}
