//! Random faults of the database, and random ends of the intake: whatever happens, every stored row is written at least once,
//! and the last row of a key is the last one that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use batchsql_core::{ErrorClass, Row as _, ValueRef};
use batchsql_testkit::{ScriptedSink, Step};
use batchsql_testserver::Random;

use crate::support::{LONG, in_table, keyed, numbers, options, plain, row, start};

const RUNS: u64 = 24;
const KEYS: i64 = 7;

fn step(random: &mut Random, exactly: bool) -> Step {
    match random.below(13) {
        // The pipeline ends the session of a late write, for tables with an order only.
        7 if exactly => Step::Late,
        0 => Step::LoseReply,
        1 => Step::Fail(ErrorClass::Unknown),
        2 => Step::Fail(ErrorClass::Transient),
        3 => Step::Panic,
        4 => Step::Delay(Duration::from_millis(3)),
        5 => Step::LoseRow(0),
        6 => Step::Hang,
        _ => Step::Apply,
    }
}

/// One database through several lives of an intake.
async fn run(seed: u64, exactly: bool) {
    let mut random = Random::new(seed);
    let options = |folder: &std::path::Path| match exactly {
        true => options(folder).exactly_once("chaos"),
        false => options(folder),
    };
    let dir = tempfile::tempdir().unwrap();
    // It keeps its tables for all lives. Rows with an odd version of key 0 are bad.
    let sink = ScriptedSink::new();
    sink.keep_positions();
    let is_bad = |id: i64, version: i64| id == 0 && version % 2 == 1;
    sink.poison(move |row| match (row.get("id"), row.get("version")) {
        (Some(ValueRef::I64(id)), Some(ValueRef::I64(version))) => is_bad(id, version),
        _ => false,
    });
    let mut version = 0;
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    let (mut plain_rows, mut bad, mut bad_plain) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for _ in 0..4 {
        sink.script((0..random.below(20)).map(|_| step(&mut random, exactly)).collect::<Vec<_>>());
        sink.script_claim((0..random.below(4)).map(|_| step(&mut random, exactly)).collect::<Vec<_>>());
        let options = options(dir.path()).segment_bytes(16 << 10).window_bytes(1 << 10).partitions(3);
        let db = loop {
            match start(&sink, options.clone()).await {
                Ok(db) => break db,
                // The one before was dropped, and is ending.
                Err(error) => assert!(error.is_locked(), "seed {seed}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert_eq!((db.recovered().damaged_parts, db.recovered().missing), (0, 0), "seed {seed}");
        for _ in 0..random.below(60) {
            let id = random.below(KEYS as u64) as i64;
            version += 1;
            let is_keyed = random.below(3) > 0;
            let schema = if is_keyed { keyed() } else { plain() };
            db.submit(&row(&schema, id, version)).await.unwrap();
            match is_keyed {
                _ if is_bad(id, version) => {
                    bad.insert((id, version));
                    bad_plain.extend((!is_keyed).then_some((id, version)));
                }
                true => drop(last.insert(id, version)),
                false => drop(plain_rows.insert((id, version))),
            }
            if random.below(10) == 0 {
                sink.release(1);
                sink.deliver();
            }
        }
        match random.below(3) {
            0 => drop(db.close(Duration::ZERO).await),
            1 => drop(db.close(Duration::from_millis(random.below(60))).await),
            _ => drop(db),
        }
    }
    // The faults are over.
    sink.release(1_000);
    let db = loop {
        match start(&sink, options(dir.path()).partitions(3).segment_bytes(16 << 10)).await {
            Ok(db) => break db,
            Err(error) => assert!(error.is_locked(), "seed {seed}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let flushed = tokio::time::timeout(LONG, db.flush()).await;
    flushed.unwrap_or_else(|_| panic!("seed {seed}: {:?}", db.stats())).unwrap();
    assert!(db.close(LONG).await.is_drained(), "seed {seed}");
    let found: BTreeMap<i64, i64> = in_table(&sink, "keyed").into_iter().collect();
    assert_eq!(found, last, "seed {seed}: the last version of each key");
    let mut found = in_table(&sink, "plain");
    found.sort_unstable();
    if exactly {
        sink.deliver();
        assert!(found.windows(2).all(|two| two[0] != two[1]), "seed {seed}: doubled rows: {found:?}");
        let mut versions: BTreeMap<i64, i64> = BTreeMap::new();
        for (id, version) in sink.applied().iter().filter(|row| row.schema().table_display() == "keyed").map(numbers) {
            let before = versions.insert(id, version);
            assert!(
                before.is_none_or(|before| before < version),
                "seed {seed}: {id} went from {before:?} to {version}"
            );
        }
    }
    let found: BTreeSet<(i64, i64)> = found.into_iter().collect();
    assert_eq!(found, plain_rows, "seed {seed}: rows without a key");
    let letters = std::fs::read_to_string(dir.path().join("dead-letters.ndjson")).unwrap();
    let lines = letters.lines().filter(|line| !line.is_empty());
    let letters: BTreeSet<_> = lines
        .map(|line| {
            let line: batchsql_core::DeadLetterLine = line.parse().unwrap();
            numbers(&line.row(&keyed()).unwrap())
        })
        .collect();
    // A bad row of a key may be superseded by a later one before it is tried.
    assert!(letters.is_subset(&bad), "seed {seed}: {letters:?} are rejected, and {bad:?} are bad");
    assert!(bad_plain.is_subset(&letters), "seed {seed}: {letters:?} are rejected, and {bad_plain:?} are bad");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_and_restarts_lose_nothing_and_keep_the_order() {
    let first = std::env::var("BATCHSQL_SEED").map_or(0, |seed| seed.parse().unwrap());
    let runs: Vec<_> = (first..first + RUNS).map(|seed| tokio::spawn(run(seed, false))).collect();
    for run in runs {
        run.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_and_restarts_double_nothing() {
    let first = std::env::var("BATCHSQL_SEED").map_or(0, |seed| seed.parse().unwrap());
    let runs: Vec<_> = (first..first + RUNS).map(|seed| tokio::spawn(run(seed, true))).collect();
    for run in runs {
        run.await.unwrap();
    }
}
