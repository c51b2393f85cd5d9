//! SIGKILL at random times: every row that was acknowledged reaches its table, and the last row of a key is the last one
//! that was stored. Two defects on purpose must be found.
//!
//! A kill leaves what the operating system has in memory, so this does not test syncs: the simulated disk of `batchsql-log`
//! does.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use batchsql_core::{Conflict, PipelineConfig, Schema};
use batchsql_durable::{DurableBatchSql, DurableOptions, Sabotage};
use tokio::sync::mpsc;

use crate::sqlite::{database, open, pairs};
use crate::support::{LONG, options, row, table};
use batchsql_testserver::Kills;
use batchsql_testserver::process::{self, Process, command};

/// Kills of a normal run; `BATCHSQL_KILLS` asks for more.
const KILLS: u64 = 24;
/// Versions of one round; no writer lives long enough to use them up.
const ROUND: i64 = 1_000_000;
/// Each has a key of its own, and submits its versions in their order.
const PRODUCERS: i64 = 16;

fn keyed() -> Schema {
    table("keyed", Conflict::update(["id"]))
}

pub(crate) fn plain() -> Schema {
    table("plain", Conflict::none())
}

/// Small segments and windows, so that kills occur at every stage.
fn small(folder: &Path, sabotage: &str) -> DurableOptions {
    let options = options(folder).segment_bytes(64 << 10).window_bytes(16 << 10).partitions(4);
    match sabotage {
        "early" => options.sabotage(Sabotage::AcknowledgeEarly),
        "settle" => options.sabotage(Sabotage::SettleEarly),
        "exactly" => options.exactly_once("kills"),
        _ => options,
    }
}

pub(crate) async fn start(path: &Path, sabotage: &str) -> DurableBatchSql {
    let config = PipelineConfig::default().flush_size(40).flush_interval(Duration::from_millis(2));
    open(path, config, small(&path.with_extension("intake"), sabotage)).await
}

/// Submits versions from `first` on without end, and prints `id version` of each one that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn writer() {
    let Some(arguments) = process::arguments() else { return };
    let [path, first, sabotage] = &arguments[..] else { panic!("path, first and sabotage") };
    let first: i64 = first.parse().unwrap();
    let db = start(Path::new(path), sabotage).await;
    process::tell("ready");
    let (send, mut stored) = mpsc::unbounded_channel();
    for id in 0..PRODUCERS {
        let (db, send) = (db.clone(), send.clone());
        tokio::spawn(async move {
            let (keyed, plain) = (keyed(), plain());
            for version in first..first + ROUND {
                db.submit(&row(&keyed, id, version)).await.unwrap();
                db.submit_all([row(&plain, id, version), row(&plain, id, -version - 1)]).await.unwrap();
                send.send((id, version)).unwrap();
                if sabotaged_writers_must_not_spin(version) {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    drop(send);
    while let Some((id, version)) = stored.recv().await {
        process::tell(format!("{id} {version}"));
    }
}

/// A row that is acknowledged too early does not wait for anything.
fn sabotaged_writers_must_not_spin(version: i64) -> bool {
    version % 8 == 0
}

/// Writes what is in the log, and prints how many rows there were.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn drain() {
    let Some(arguments) = process::arguments() else { return };
    let db = start(Path::new(&arguments[0]), &arguments[1]).await;
    let recovered = db.recovered().clone();
    assert_eq!((recovered.damaged_parts, recovered.missing), (0, 0), "{recovered:?}");
    db.flush().await.unwrap();
    assert_eq!(db.stats().log.unsettled_rows, 0);
    assert!(db.close(LONG).await.is_drained());
    process::tell(recovered.rows);
}

/// The problems of the tables, given the acknowledged versions of each id. The log is empty.
fn complaints(path: &Path, told: &BTreeMap<i64, Vec<i64>>) -> Vec<String> {
    let mut complaints = Vec::new();
    let keyed: BTreeMap<i64, i64> = pairs(path, "SELECT id, version FROM keyed").into_iter().collect();
    for (id, versions) in told {
        let last = *versions.last().unwrap();
        // One more may be stored, whose acknowledgement was not printed.
        let found = keyed.get(id).copied().unwrap_or(-1);
        if found < last {
            complaints.push(format!("key {id} has version {found}, not {last}"));
        }
    }
    let mut history: HashMap<i64, Vec<i64>> = HashMap::new();
    for (id, version) in pairs(path, "SELECT id, version FROM history ORDER BY number") {
        history.entry(id).or_default().push(version);
    }
    for (id, versions) in &history {
        // A repeat goes back to an earlier version, and must then come to the last one again.
        if versions.iter().max() != versions.last() {
            complaints.push(format!("key {id} ends with version {:?}, which is not its last one", versions.last()));
        }
    }
    let mut plain: HashMap<(i64, i64), u32> = HashMap::new();
    pairs(path, "SELECT id, version FROM plain").into_iter().for_each(|row| *plain.entry(row).or_default() += 1);
    for (id, versions) in told {
        let missing = versions.iter().flat_map(|version| [*version, -version - 1]);
        let missing = missing.filter(|version| !plain.contains_key(&(*id, *version)));
        complaints.extend(missing.map(|version| format!("row {id} {version} is not there")));
    }
    complaints
}

/// Kills a writer several times; the numbers that it has printed.
fn run(path: &Path, kills: &mut Kills, sabotage: &str) -> BTreeMap<i64, Vec<i64>> {
    let mut told: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for round in 0..kills.count {
        let arguments = [path.to_str().unwrap(), &(round as i64 * ROUND).to_string(), sabotage];
        let mut writer = command("kill::writer", &arguments);
        // Most writers are killed while they write, some while they read the log of the one before.
        let lines = kills.kill(&mut writer, &[0, 1, 2, 2, 2, 2], Duration::from_millis(120), |_| ());
        for line in lines.iter().filter(|line| *line != "ready") {
            let (id, version) = line.split_once(' ').unwrap();
            told.entry(id.parse().unwrap()).or_default().push(version.parse().unwrap());
        }
    }
    told
}

pub(crate) fn drain_all(path: &Path, mode: &str) -> i64 {
    let lines = Process::start(&mut command("kill::drain", &[path.to_str().unwrap(), mode])).unwrap().finish();
    lines.last().unwrap().parse().unwrap()
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut kills = Kills::of_run(KILLS);
    let Kills { count, seed, .. } = kills;
    let (_dir, path) = database();
    let begun = Instant::now();
    let told = run(&path, &mut kills, "");
    let left = drain_all(&path, "");
    let complaints = complaints(&path, &told);
    assert!(complaints.is_empty(), "seed {seed}: {complaints:#?}");
    let rows = pairs(&path, "SELECT count(*), count(DISTINCT id || ' ' || version) FROM plain")[0];
    let acknowledged: usize = told.values().map(Vec::len).sum();
    println!(
        "{count} kills in {:?}: {} rows acknowledged, {left} left in the log at the end, {} plain rows doubled",
        begun.elapsed(),
        acknowledged * 3,
        rows.0 - rows.1
    );
    // Otherwise the kills came before any row was written.
    assert!(acknowledged as u64 > 10 * count, "{acknowledged} versions were acknowledged in {count} rounds");
}

/// No row is lost, and none is written twice: also not in a table without a key, and not for a while.
#[test]
fn what_was_acknowledged_is_written_exactly_once() {
    let mut kills = Kills::of_run(KILLS);
    let Kills { count, seed, .. } = kills;
    let (_dir, path) = database();
    let told = run(&path, &mut kills, "exactly");
    let left = drain_all(&path, "exactly");
    let complaints = complaints(&path, &told);
    assert!(complaints.is_empty(), "seed {seed}: {complaints:#?}");
    let rows = pairs(&path, "SELECT count(*), count(DISTINCT id || ' ' || version) FROM plain")[0];
    assert_eq!(rows.0, rows.1, "seed {seed}: rows without a key are doubled");
    let steps = "SELECT count(*), count(DISTINCT id || ' ' || version) FROM history";
    let steps = pairs(&path, steps)[0];
    assert_eq!(steps.0, steps.1, "seed {seed}: a version was written again");
    let backwards =
        "SELECT count(*), 0 FROM (SELECT version < lag(version) OVER (PARTITION BY id ORDER BY number) AS back
        FROM history) WHERE back";
    assert_eq!(pairs(&path, backwards)[0].0, 0, "seed {seed}: a key went back to an earlier version");
    let acknowledged: usize = told.values().map(Vec::len).sum();
    println!("{count} kills: {} rows acknowledged, {left} left in the log at the end, none doubled", acknowledged * 3);
    assert!(acknowledged as u64 > 10 * count, "{acknowledged} versions were acknowledged in {count} rounds");
}

/// Runs of a writer with a defect: on a busy machine the kills of one may all miss the moment at which it shows.
const RUNS: u64 = 10;

/// The test must find a writer that loses rows.
#[track_caller]
fn is_caught(sabotage: &str) {
    for seed in 7..7 + RUNS {
        let (_dir, path) = database();
        let told = run(&path, &mut Kills::new(6, seed), sabotage);
        drain_all(&path, "");
        let complaints = complaints(&path, &told);
        println!("{sabotage}: {} complaints, {:?}", complaints.len(), complaints.first());
        if !complaints.is_empty() {
            return;
        }
    }
    panic!("nobody noticed the defect {sabotage} in {RUNS} runs");
}

#[test]
fn acknowledging_before_the_log_has_the_row_is_caught() {
    is_caught("early");
}

#[test]
fn settling_before_the_outcome_is_caught() {
    is_caught("settle");
}
