//! SIGKILL at random times, of publishers, workers and the server: every row that was accepted is in the table, exactly once where
//! the database keeps positions. The table has no key, so a row that is written twice is there twice.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use batchsql_testserver::{Kind, Server, unique};

use crate::database::{Database, On};
use crate::support::until;

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

/// What is killed, and when.
struct Case {
    on: On,
    seed: u64,
    guarantee: Guarantee,
}

/// What the table must have of the rows that were accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guarantee {
    ExactlyOnce,
    AtLeastOnce,
}

/// The ids in a table without its doubles.
fn distinct(ids: &[i64]) -> BTreeSet<i64> {
    ids.iter().copied().collect()
}

/// Kills the processes of one stream in turn, and checks what is in the table when all of them have ended.
async fn check(Case { on, seed, guarantee }: Case) {
    let database = Database::new(on, "readings").await;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = Server::start(Kind::Nats, &[]);
    let (url, stream) = (server.dsn().to_owned(), unique("readings"));
    let (folder, letters) = (database.path("intake"), database.path("dead-letters.ndjson"));
    let work = || start(&["work", &url, &stream, database.dsn(), letters.to_str().unwrap()]);
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
    let has_all = async || {
        let found = distinct(&database.ids().await);
        accepted.iter().all(|id| found.contains(id))
    };
    until("all rows are written", has_all).await;
    // Those that were not heard of may still come; then nothing more.
    for worker in &mut workers {
        drop(worker.0.stdin.take());
        let ended = worker.0.wait().unwrap();
        assert!(ended.success(), "{ended}");
    }
    assert!(std::fs::read_to_string(letters).unwrap_or_default().is_empty());
    let found = database.ids().await;
    let ids = distinct(&found);
    let doubled = found.len() - ids.len();
    let lost: Vec<_> = accepted.iter().filter(|id| !ids.contains(id)).collect();
    println!("{on:?}, seed {seed}: {} rows accepted, {} lost, {doubled} doubled", accepted.len(), lost.len());
    assert!(lost.is_empty(), "lost: {lost:?}");
    if guarantee == Guarantee::ExactlyOnce {
        let doubled: Vec<_> = found.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0]).collect();
        assert!(doubled.is_empty(), "doubled: {doubled:?}");
    }
    // At most the one behind the last one of each killed publisher.
    assert!(ids.len() <= accepted.len() + 8, "{} of {}", ids.len(), accepted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_in_sqlite() {
    check(Case { on: On::Sqlite, seed: 1, guarantee: Guarantee::ExactlyOnce }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_in_postgres() {
    check(Case { on: On::Postgres, seed: 2, guarantee: Guarantee::ExactlyOnce }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_in_mysql() {
    check(Case { on: On::MySql, seed: 3, guarantee: Guarantee::ExactlyOnce }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_in_redis() {
    check(Case { on: On::Redis, seed: 4, guarantee: Guarantee::AtLeastOnce }).await;
}
