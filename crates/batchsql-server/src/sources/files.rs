//! Owns a folder as a source: files that match a pattern are loaded when they are complete.
//! Must not know how a file is loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

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
    let mut known: HashMap<PathBuf, (Version, Instant)> = HashMap::new();
    let mut ticks = interval(files.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let pattern = files.pattern.clone();
        let found = tokio::task::spawn_blocking(move || find(&pattern)).await.unwrap_or_default();
        done.retain(|path, _| found.iter().any(|(known, _)| known == path));
        known.retain(|path, (known, _)| found.iter().any(|(found, version)| found == path && version == known));
        for (path, version) in found {
            if done.get(&path) == Some(&version) {
                continue;
            }
            let (_, since) = known.entry(path.clone()).or_insert((version, Instant::now()));
            if unchanged_for(version, SystemTime::now(), since.elapsed()) < files.unchanged_for {
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

/// How long a file has not changed. If its time is in the future, or there is none, that is as long as it is `known` as it is.
fn unchanged_for((_, modified): Version, now: SystemTime, known: Duration) -> Duration {
    modified.and_then(|modified| now.duration_since(modified).ok()).unwrap_or(known)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_future_is_complete_when_it_was_known_long_enough() {
        let (now, second) = (SystemTime::now(), Duration::from_secs(1));
        let unchanged = |modified: Option<SystemTime>| unchanged_for((7, modified), now, 2 * second);
        assert_eq!(unchanged(Some(now - 5 * second)), 5 * second);
        assert_eq!(unchanged(Some(now)), Duration::ZERO);
        assert_eq!(unchanged(Some(now + 3600 * second)), 2 * second);
        assert_eq!(unchanged(None), 2 * second);
    }
}
