//! SIGKILL while requests with keys are stored: a client that got no answer sends its request again with the same key, and every
//! request is in a table without a key exactly once, with all of its rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use batchsql_durable::{Once, RequestKey};
use tokio::sync::mpsc;

use crate::kill::{drain_all, plain, start};
use crate::sqlite::{database, pairs};
use crate::support::row;
use batchsql_testserver::Kills;
use batchsql_testserver::process::{self, command};

const KILLS: u64 = 24;
const CLIENTS: usize = 8;
/// Rows of a request, in a table without a key.
const ROWS: i64 = 5;

/// Each client sends its requests from `first` on, without end; prints `client request stored|repeated`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn clients() {
    let Some(arguments) = process::arguments() else { return };
    let [path, mode, firsts] = &arguments[..] else { panic!("path, mode and the first request of each client") };
    let db = start(Path::new(path), mode).await;
    process::tell("ready");
    let (send, mut answers) = mpsc::unbounded_channel();
    for (client, first) in firsts.split(',').enumerate() {
        let (db, send, first) = (db.clone(), send.clone(), first.parse::<i64>().unwrap());
        tokio::spawn(async move {
            let plain = plain();
            for request in first.. {
                let mut group = db.group();
                (0..ROWS).for_each(|n| group.push(&row(&plain, client as i64, request * ROWS + n)).unwrap());
                let key = RequestKey::new(format!("{client} {request}"), request.to_le_bytes());
                let once = db.submit_group_once(&group, &key).await.unwrap();
                send.send((client, request, once)).unwrap();
            }
        });
    }
    drop(send);
    while let Some((client, request, once)) = answers.recv().await {
        let what = if matches!(once, Once::Repeated(_)) { "repeated" } else { "stored" };
        process::tell(format!("{client} {request} {what}"));
    }
}

#[test]
fn requests_that_are_sent_again_after_a_kill_are_written_once() {
    let mut kills = Kills::of_run(KILLS);
    let Kills { count, seed, .. } = kills;
    let (_dir, path) = database();
    let mut next = [0_i64; CLIENTS];
    let (mut repeated, mut answered) = (0, 0);
    for _ in 0..count {
        let firsts = next.map(|first| first.to_string()).join(",");
        let mut program = command("requests::clients", &[path.to_str().unwrap(), "exactly", &firsts]);
        let lines = kills.kill(&mut program, &[0, 1, 3, 9], Duration::from_millis(60), |_| ());
        for line in lines.iter().filter(|line| *line != "ready") {
            let mut parts = line.split(' ');
            let mut part = || parts.next().unwrap();
            let (client, request): (usize, i64) = (part().parse().unwrap(), part().parse().unwrap());
            assert_eq!(request, next[client], "the answers of a client come in order");
            next[client] += 1;
            answered += 1;
            repeated += usize::from(part() == "repeated");
        }
    }
    drain_all(&path, "exactly");
    let mut found: BTreeMap<(i64, i64), u32> = BTreeMap::new();
    for (client, version) in pairs(&path, "SELECT id, version FROM plain") {
        *found.entry((client, version)).or_default() += 1;
    }
    assert!(found.values().all(|count| *count == 1), "seed {seed}: rows are doubled");
    for (client, next) in next.into_iter().enumerate() {
        let rows = found.range((client as i64, i64::MIN)..=(client as i64, i64::MAX)).count() as i64;
        // More requests may be stored, whose answers did not come.
        let is_whole = rows % ROWS == 0 && rows >= next * ROWS;
        assert!(is_whole, "seed {seed}: client {client}: {rows} rows, {next} requests");
        let last = found.range((client as i64, 0)..=(client as i64, i64::MAX)).next_back().map(|((_, last), _)| *last);
        assert_eq!(last.unwrap_or(-1) + 1, rows, "seed {seed}: client {client} has holes");
    }
    println!("{count} kills: {answered} requests answered, {repeated} of them had been stored before a kill");
    assert!(answered as u64 > 10 * count && repeated > 0, "{answered} answers, {repeated} repeated");
}
