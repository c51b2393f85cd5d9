//! Owns a folder as a source: files that match a pattern are loaded when they are complete.
//! Must not know how a file is loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use batchsql::{BatchSql, DynSink};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::settings::Files;
use crate::exit::{Exit, Failure, Remedy};
use crate::load::command::summary;
use crate::load::file::Input;
use crate::load::loading::{Job, Loaded};
use crate::load::mark::Unsaved;
use crate::load::marked::mark_of;
use crate::load::stop::Stop;
use crate::sources::said_files::SaidFiles;
use crate::table::target::Target;

/// Rejected records of one file, after which it is left to a person.
const MOST_REJECTS: u64 = 10_000;

/// A file that another process has taken is left to it for this time. Otherwise two services would take it from each other.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// What a file looked like when it was dealt with.
type Version = (u64, Option<SystemTime>);

/// Looks for files until it is dropped, or is to stop: then it ends when what is being written is known to a later run.
pub(crate) async fn run(
    id: &str,
    files: &Files,
    (db, sink): (&BatchSql, &DynSink),
    target: &Arc<Target>,
    database: &str,
    mut stop: Stop,
) -> Exit {
    let mut done: HashMap<PathBuf, Version> = HashMap::new();
    let mut known: HashMap<PathBuf, (Version, Instant)> = HashMap::new();
    let unsaved = Unsaved::default();
    let mut taken: Option<(PathBuf, Instant)> = None;
    let mut said = SaidFiles::default();
    let mut ticks = interval(files.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.wanted() => return Exit::Done,
            _ = ticks.tick() => {}
        }
        let pattern = files.pattern.clone();
        let found = tokio::task::spawn_blocking(move || find(&pattern)).await.unwrap_or_default();
        unsaved.retain(found.iter().map(|(path, _)| mark_of(path, None)));
        {
            let versions: HashMap<&Path, &Version> =
                found.iter().map(|(path, version)| (path.as_path(), version)).collect();
            done.retain(|path, _| versions.contains_key(path.as_path()));
            said.retain(|path| versions.get(path).is_some_and(|version| done.get(path) != Some(*version)));
            known.retain(|path, (known, _)| versions.get(path.as_path()).is_some_and(|version| *version == known));
        }
        for (path, version) in found {
            if done.get(&path) == Some(&version) {
                continue;
            }
            let (_, since) = known.entry(path.clone()).or_insert((version, Instant::now()));
            if unchanged_for(version, SystemTime::now(), since.elapsed()) < files.unchanged_for {
                continue;
            }
            if taken.as_ref().is_some_and(|(other, since)| *other == path && since.elapsed() < LEFT_ALONE) {
                // Those behind it wait for it, whoever loads it.
                break;
            }
            let begin = Instant::now();
            let rejects = rejects(&path);
            let opened = tokio::select! {
                biased;
                () = stop.wanted() => return Exit::Done,
                opened = open(files, &path) => opened,
            };
            let input = match opened {
                Ok(input) => input,
                // Others may be read, so they do not wait for it.
                Err(Failure { exit: Exit::Unavailable, text, .. }) => {
                    said.not_loaded(id, &path, &text);
                    continue;
                }
                Err(Failure { text, .. }) => {
                    tracing::error!(source = id, "not loaded; correct it: {text}");
                    done.insert(path, version);
                    continue;
                }
            };
            match load(files, (db, sink), target, database, input, &rejects, (&unsaved, &stop)).await {
                Ok(loaded) => {
                    let text = summary(&loaded, &rejects, begin.elapsed());
                    if loaded.rejected == 0 {
                        tracing::info!(source = id, file = %path.display(), "loaded: {text}");
                    } else {
                        tracing::warn!(source = id, file = %path.display(), "loaded: {text}");
                    }
                    done.insert(path, version);
                }
                Err(Failure { text, .. }) if stop.is_wanted() => {
                    tracing::info!(source = id, file = %path.display(), "not loaded to its end: {text}");
                    return Exit::Done;
                }
                // Others do not need it.
                Err(Failure { remedy: Remedy::FileBeside, text, .. }) => {
                    said.not_loaded(id, &path, &text);
                }
                Err(Failure { remedy: Remedy::OtherProcess, text, .. }) => {
                    tracing::warn!(source = id, file = %path.display(), "left to the other one for {LEFT_ALONE:?}: {text}");
                    taken = Some((path, Instant::now()));
                    break;
                }
                // It is tried again: the database may come back, or somebody repairs the table.
                Err(Failure { exit: Exit::Unavailable, text, .. } | Failure { remedy: Remedy::Table, text, .. }) => {
                    said.not_loaded(id, &path, &text);
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

/// Where records of a file go that are not written.
pub(crate) fn rejects(path: &Path) -> PathBuf {
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
    (unsaved, stop): (&Unsaved, &Stop),
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
        unsaved: unsaved.clone(),
        stop: stop.clone(),
    };
    job.run(|_| {}).await
}

#[cfg(test)]
mod tests {
    use batchsql::{Claim, ClaimFrom, DynSink};
    use batchsql_testkit::{ScriptedSink, Step};
    use tokio::time::sleep;

    use super::*;
    use crate::load::loading::tests::{ids, plain};
    use crate::load::stop::Stopper;

    /// Two services would take it from each other, and both would get on slowly.
    #[tokio::test(start_paused = true)]
    async fn a_file_that_another_process_has_taken_is_left_to_it() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        std::fs::write(folder.path().join("a.csv"), "id,region\n1,eu\n").unwrap();
        let files = Files {
            table: "orders".to_owned(),
            given: "*.csv".into(),
            folder: folder.path().to_owned(),
            pattern: folder.path().join("*.csv").to_string_lossy().into_owned(),
            format: None,
            at_least_once: false,
            every: Duration::from_secs(1),
            unchanged_for: Duration::ZERO,
        };
        let db = BatchSql::builder(DynSink::new(sink.clone())).start().unwrap();
        let (stopper, of_run, target) = (Stopper::new(), db.clone(), Arc::new(plain()));
        let of_sink = DynSink::new(sink.clone());
        let stop = stopper.watched();
        sink.script([Step::Hang]);
        let running =
            tokio::spawn(async move { run("drop", &files, (&of_run, &of_sink), &target, "shop", stop).await });
        while sink.writes() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let input = Input::open(&folder.path().join("a.csv"), None, |_| {}).unwrap();
        let source = format!("load:{}", &input.digest[..16]);
        let key = db.positions(&source).await.unwrap()[0].key.clone();
        db.claim(&key, &Claim::of("other").from(ClaimFrom::Anyone)).await.unwrap();
        sink.release(1);
        sleep(LEFT_ALONE / 2).await;
        let owner = db.positions(&source).await.unwrap()[0].owner.clone();
        assert_eq!((owner.as_deref(), sink.applied().len()), (Some("other"), 0));
        // The other one may have ended.
        while sink.applied().is_empty() {
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(ids(&sink), [1]);
        stopper.stop();
        assert_eq!(running.await.unwrap(), Exit::Done);
    }

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
