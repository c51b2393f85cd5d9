//! SIGKILL at random times, of publishers, workers and the server: every row that was accepted is in the table once. The
//! table has no key, so a row that is written twice is there twice.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use batchsql_testserver::{Frozen, Kind, Server, dsn, unique};

use crate::support::{Target, until};

/// Cargo does not show tests the path of examples, and builds them only when neither a kind of target nor a name of a test is
/// given: then build it first, or this runs an old one.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).expect("tests are in target/…/deps").join("examples/nats_rows");
    let advice = "build it with `cargo build -p batchsql-nats --examples`";
    assert!(program.exists(), "{} is not there; {advice}", program.display());
    program
}

/// A program that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(arguments: &[&str]) -> Running {
    let mut command = Command::new(program());
    Running(command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
}

/// Publishes rows from `first` on until `most` are accepted, and is killed then; or, without `most`, to its end. Returns
/// the rows that were accepted. The one behind them may be in the log.
fn publish(url: &str, stream: &str, folder: &Path, first: i64, to: i64, most: Option<usize>) -> Vec<i64> {
    let (first, to) = (first.to_string(), to.to_string());
    let mut running = start(&["publish", url, stream, folder.to_str().unwrap(), &first, &to]);
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut accepted = Vec::new();
    let mut is_published = false;
    for line in lines.map_while(Result::ok) {
        match line.strip_prefix("accepted ") {
            Some(id) => accepted.push(id.parse().unwrap()),
            None => is_published = line == "published",
        }
        if most.is_some_and(|most| accepted.len() == most) {
            running.0.kill().unwrap();
        }
    }
    assert!(is_published || most.is_some(), "the publisher has ended early");
    accepted
}

/// What is killed, and when, follows from the seed.
async fn kills(target: &Target, database: &str, seed: u64, count: impl AsyncFn() -> usize) -> (Vec<i64>, i64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = Server::start(Kind::Nats, &[]);
    let (url, stream) = (server.dsn().to_owned(), unique("readings"));
    let (folder, letters) = (target.path("intake"), target.path("dead-letters.ndjson"));
    let work = || start(&["work", &url, &stream, database, letters.to_str().unwrap()]);
    let mut workers = vec![work(), work()];
    let (mut accepted, mut next) = (Vec::new(), 0);
    for round in 0..8 {
        let most = random.usize(20..200);
        let (url, stream, folder) = (url.clone(), stream.clone(), folder.clone());
        let publishing =
            tokio::task::spawn_blocking(move || publish(&url, &stream, &folder, next, i64::MAX, Some(most)));
        tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
        match round % 4 {
            0 | 2 => workers[round % 3 % 2] = work(),
            1 => {
                server.kill();
                server.start_again();
            }
            _ => workers = vec![work(), work()],
        }
        let more = publishing.await.unwrap();
        // The row behind the last one may be accepted or not: nobody submits it again.
        next = more.last().map_or(next, |last| last + 2);
        accepted.extend(more);
    }
    let last = publish(&url, &stream, &folder, next, next + 100, None);
    accepted.extend(last);
    until("all rows are written", async || count().await >= accepted.len()).await;
    // Those that were not heard of may still come; then nothing more.
    for worker in &mut workers {
        drop(worker.0.stdin.take());
        let ended = worker.0.wait().unwrap();
        assert!(ended.success(), "{ended}");
    }
    assert!(std::fs::read_to_string(letters).unwrap_or_default().is_empty());
    (accepted, next)
}

/// A worker that is frozen for longer than its leases: another one takes its partitions over, and what it still wants to
/// commit when it goes on is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_writes_nothing_when_it_goes_on() {
    let target = Target::new().await;
    target.execute("CREATE TABLE readings (id INTEGER, note TEXT)").await;
    let database = format!("sqlite:{}", target.path("target.db").display());
    let (url, stream) = (dsn(Kind::Nats), unique("readings"));
    let (folder, letters) = (target.path("intake"), target.path("dead-letters.ndjson"));
    let work = || start(&["work", &url, &stream, &database, letters.to_str().unwrap()]);
    let (worker, other) = (work(), work());
    let publishing = |from: i64, to: i64| {
        let (url, stream, folder) = (url.clone(), stream.clone(), folder.clone());
        tokio::task::spawn_blocking(move || publish(&url, &stream, &folder, from, to, None))
    };
    let has =
        async |count: usize| until("all rows are written", async || target.ids("readings").await.len() >= count).await;
    publishing(0, 300).await.unwrap();
    has(300).await;
    for round in 1..4 {
        let (from, to) = (round * 300, (round + 1) * 300);
        let rows = publishing(from, to);
        tokio::time::sleep(Duration::from_millis(30)).await;
        let frozen = Frozen::stop(worker.0.id()).expect("it runs");
        rows.await.unwrap();
        // Its partitions too, which the other one gets when the leases are over. A frozen transaction may hold the database of
        // SQLite, so that nobody writes until it goes on.
        tokio::time::sleep(Duration::from_secs(5)).await;
        frozen.resume();
        has(usize::try_from(to).unwrap()).await;
    }
    drop((worker, other));
    assert_eq!(target.ids("readings").await, (0..1200).collect::<Vec<_>>());
}

fn assert_once(accepted: &[i64], found: &[i64]) {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    found.iter().for_each(|id| *counts.entry(*id).or_default() += 1);
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "doubled: {doubled:?}");
    let lost: Vec<_> = accepted.iter().filter(|id| !counts.contains_key(id)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    // At most the one behind the last one of each killed publisher.
    assert!(found.len() <= accepted.len() + 8, "{} of {}", found.len(), accepted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_in_sqlite() {
    let target = Target::new().await;
    target.execute("CREATE TABLE readings (id INTEGER, note TEXT)").await;
    let database = format!("sqlite:{}", target.path("target.db").display());
    let (accepted, _) = kills(&target, &database, 1, async || target.ids("readings").await.len()).await;
    assert_once(&accepted, &target.ids("readings").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_in_postgres() {
    let (target, schema) = (Target::new().await, unique("nats"));
    let database = crate::support::Postgres::new(&dsn(Kind::Postgres), &schema).await;
    database.execute("CREATE TABLE readings (id bigint, note text)").await;
    let (accepted, _) = kills(&target, database.dsn(), 2, async || database.ids("readings").await.len()).await;
    assert_once(&accepted, &database.ids("readings").await);
}
