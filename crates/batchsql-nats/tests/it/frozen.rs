//! SIGSTOP of a worker for longer than its leases: another worker takes its partitions over, and what the frozen one still wants to
//! write when it goes on is refused. Both count it. The table has no key, so a row that is written twice is there twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::Context;
use batchsql_core::{BatchSql, StoredPosition};
use batchsql_nats::{StreamOptions, Worker, WorkerOptions};
use batchsql_testserver::process::{self, Process, command};
use batchsql_testserver::{Frozen, Kind, dsn};

use crate::database::{Database, On, sql_sink};
use crate::support::{LIMIT, connect, plain, publish, publisher, row, stream, until_within, worker_config};
use crate::visible::Observer;

/// How long the partitions of a frozen worker stay with it.
const LEASE: Duration = Duration::from_secs(5);
/// A worker whose machine is busy may need several turns to take partitions over.
const LONG: Duration = Duration::from_secs(180);
/// Partitions of the stream; each of two workers has half of them.
const PARTITIONS: u32 = 4;
const HALF: u64 = 2;

fn options(stream: StreamOptions, letters: &str, owner: &str) -> WorkerOptions {
    WorkerOptions::new(stream, letters).exactly_once().lease(LEASE).owner(owner)
}

/// What a worker says about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    held: u64,
    fences: u64,
    written: u64,
}

/// Works until its input ends. Prints its process id, and what has changed since the line before.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn worker() {
    let Some(arguments) = process::arguments() else { return };
    let [url, name, database, letters] = &arguments[..] else { panic!("url, stream, database, letters") };
    let (context, seen) = (connect(url).await, Observer::default());
    let builder = BatchSql::builder(sql_sink(database).await).config(worker_config());
    let stream = StreamOptions::new(&**name).prefix(&**name).partitions(PARTITIONS);
    let worker = seen.start(builder, &context, options(stream, letters, "frozen")).await;
    process::tell(std::process::id());
    let mut is_over = tokio::task::spawn_blocking(process::wait_for_go);
    let mut last = Told::default();
    loop {
        let written = worker.stats().counts.written;
        let now = Told { held: seen.table().held_partitions, fences: seen.done().fences, written };
        if now != last {
            process::tell(format!("{} {} {}", now.held, now.fences, now.written));
            last = now;
        }
        tokio::select! {
            _ = &mut is_over => break,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    worker.close(LIMIT).await;
}

/// That program, which is frozen and goes on.
struct WorkerProcess {
    process: Process,
    id: String,
    last: Told,
}

impl WorkerProcess {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Process::start(&mut command("frozen::worker", arguments)).unwrap();
        let id = process.line();
        Self { process, id, last: Told::default() }
    }

    /// Reads what it says until something is so.
    fn until(&mut self, what: &str, is_so: impl Fn(Told) -> bool) -> Told {
        tokio::task::block_in_place(|| {
            while !is_so(self.last) {
                let line = self.process.line();
                let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
                let [held, fences, written] = numbers[..] else { panic!("{what}: {line}") };
                self.last = Told { held, fences, written };
            }
        });
        self.last
    }

    /// Returns when it does nothing any more. It goes on when the result is dropped.
    fn freeze(&self) -> Frozen {
        let id = self.id.parse().expect("the number of a process");
        tokio::task::block_in_place(|| Frozen::stop(id)).expect("it runs")
    }
}

/// Whether others can write while a worker is frozen. A statement of SQLite locks the whole database.
fn others_can_write(on: On) -> bool {
    on != On::Sqlite
}

/// The other worker.
struct Other {
    worker: Worker,
    seen: Observer,
    source: String,
}

impl Other {
    /// Partitions of the frozen one, as the table of positions says.
    async fn of_frozen(&self) -> u64 {
        let stored = self.worker.pipeline().positions(&self.source).await.unwrap();
        let is_its = |of: &&StoredPosition| !of.key.is_seat() && of.owner.as_deref() == Some("frozen");
        stored.iter().filter(is_its).count() as u64
    }

    /// Waits until it has so many partitions.
    async fn holds(&self, count: u64) {
        until_within(LONG, "it has its share", async || self.seen.table().held_partitions == count).await;
    }

    /// Freezes the other process while that has partitions. How many these are.
    async fn freezes(&self, frozen: &WorkerProcess) -> (u64, Frozen) {
        loop {
            until_within(LONG, "each has its share", async || self.of_frozen().await == HALF).await;
            let still = frozen.freeze();
            // On a busy machine its leases may have ended just before.
            match self.of_frozen().await {
                0 => still.resume(),
                own => return (own, still),
            }
        }
    }

    /// Waits until it has all partitions, and has counted so many takeovers.
    async fn has_taken_over(&self, takeovers: u64) {
        until_within(LONG, "it has taken them over", async || self.of_frozen().await == 0).await;
        self.holds(u64::from(PARTITIONS)).await;
        until_within(LONG, "they are counted", async || self.seen.done().takeovers >= takeovers).await;
    }
}

async fn check(on: On) {
    let database = Database::new(on, "plain").await;
    let (url, stream, seen) = (dsn(Kind::Nats), stream(PARTITIONS), Observer::default());
    let context = connect(&url).await;
    stream.create(&context).await.unwrap();
    publish(&context, &stream, &plain("plain"), 0..100).await;
    let letters = database.path("letters.ndjson").display().to_string();
    let mut frozen = WorkerProcess::start(&[&url, stream.name(), database.dsn(), &letters]);
    frozen.until("it has written all", |told| told.held == u64::from(PARTITIONS) && told.written == 100);
    let builder = BatchSql::builder(sql_sink(database.dsn()).await).config(worker_config());
    let letters = database.path("letters-of-other.ndjson").display().to_string();
    let worker = seen.start(builder, &context, options(stream.clone(), &letters, "other")).await;
    let other = Other { worker, seen, source: stream.name().to_owned() };
    let written = async |count: i64| {
        until_within(LONG, "all is written", async || database.ids().await.len() as i64 >= count).await
    };
    other.holds(HALF).await;

    // It has nothing to do when it is frozen. What comes meanwhile waits in its connection, and it wants to write that first.
    let before = frozen.until("it has half", |told| told.held == HALF);
    if others_can_write(on) {
        let takeovers = other.seen.done().takeovers;
        let (own, still) = other.freezes(&frozen).await;
        publish(&context, &stream, &plain("plain"), 100..200).await;
        other.has_taken_over(takeovers + own).await;
        written(200).await;
        still.resume();
        let after = frozen.until("it was fenced", |told| told.fences >= before.fences + own);
        assert_eq!(after.written, before.written, "it has written something");
    } else {
        let still = frozen.freeze();
        publish(&context, &stream, &plain("plain"), 100..200).await;
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        still.resume();
        written(200).await;
    }
    assert_eq!(database.ids().await, (0..200).collect::<Vec<_>>());

    // It is frozen while it writes, perhaps in a transaction.
    let is_frozen = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn({
        let (context, stream, is_frozen) = (context.clone(), stream.clone(), Arc::clone(&is_frozen));
        async move { publish_until(&context, &stream, 200, &is_frozen).await }
    });
    let before = frozen.until("it writes", |told| told.written > before.written);
    let end = if others_can_write(on) {
        let takeovers = other.seen.done().takeovers;
        let (own, still) = other.freezes(&frozen).await;
        is_frozen.store(true, Ordering::SeqCst);
        let end = publishing.await.unwrap();
        other.has_taken_over(takeovers + own).await;
        written(end).await;
        still.resume();
        frozen.until("it was fenced again", |told| told.fences > before.fences);
        end
    } else {
        let still = frozen.freeze();
        is_frozen.store(true, Ordering::SeqCst);
        let end = publishing.await.unwrap();
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        still.resume();
        end
    };
    written(end).await;
    // What it has under way ends before it does.
    let lines = tokio::task::block_in_place(|| frozen.process.finish());
    other.worker.close(LIMIT).await;
    assert_eq!(database.ids().await, (0..end).collect::<Vec<_>>(), "{lines:?}");
}

/// Publishes rows from an id on, some at a time, until something is so, and some more. Returns the id behind the last one.
async fn publish_until(context: &Context, stream: &StreamOptions, first: i64, is_so: &AtomicBool) -> i64 {
    let (db, schema) = (publisher(context, stream).await, plain("plain"));
    let mut next = first;
    let mut left = 10;
    while left > 0 {
        left -= usize::from(is_so.load(Ordering::SeqCst));
        for id in next..next + 10 {
            db.submit(&row(&schema, id, "x")).await.unwrap();
        }
        db.flush().await.unwrap();
        next += 10;
    }
    assert!(db.close(LIMIT).await.is_complete());
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_writes_nothing_to_sqlite_when_it_goes_on() {
    check(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_writes_nothing_to_postgres_when_it_goes_on() {
    check(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_writes_nothing_to_mysql_when_it_goes_on() {
    check(On::MySql).await;
}
