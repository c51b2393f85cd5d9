//! Connections that break: before a batch, during it, and while the pipeline abandons it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, ErrorClass, Outcome, PipelineConfig, Schema, Sink};
use batchsql_redis::{Command, Key};
use batchsql_testserver::{Kind, Server, dsn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{HOUR, ask, ask_at, config, name, outcomes, pipeline, row, sink_at, unique, write};
use batchsql_testkit::{outcomes_of, receipts_of};

fn pairs(table: &str) -> Schema {
    Schema::builder(table).column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap()
}

/// What a proxy does with connections; the last setting applies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    /// Forwards the client's data, and cuts the connection instead of forwarding an answer.
    CutAnswers,
    /// Holds back answers.
    HoldAnswers,
    /// Cuts every connection at once.
    Cut,
}

/// A proxy before the shared server.
struct Proxy {
    dsn: String,
    mode: watch::Sender<Mode>,
    connections: Arc<AtomicUsize>,
    /// The closed connections.
    over: Arc<AtomicUsize>,
    /// Answers that were not forwarded.
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start() -> Self {
        let server = dsn(Kind::Redis).trim_start_matches("redis://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mode, watched) = watch::channel(Mode::Pass);
        let dsn = format!("redis://{}", listener.local_addr().unwrap());
        let proxy = Self { dsn, mode, connections: Arc::default(), over: Arc::default(), cuts: Arc::default() };
        let [connections, over, cuts] = [&proxy.connections, &proxy.over, &proxy.cuts].map(Arc::clone);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let passing = pass(client, TcpStream::connect(&server).await.unwrap(), watched.clone(), cuts.clone());
                let over = over.clone();
                tokio::spawn(async move {
                    passing.await;
                    over.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        proxy
    }

    fn set(&self, mode: Mode) {
        self.mode.send(mode).unwrap();
    }

    /// Waits until an answer was cut.
    async fn has_cut(&self) {
        eventually(|| self.cuts.load(Ordering::SeqCst) > 0).await;
    }

    /// Waits until every connection is closed.
    async fn is_idle(&self) {
        eventually(|| self.over.load(Ordering::SeqCst) == self.connections.load(Ordering::SeqCst)).await;
    }
}

async fn eventually(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it happens");
}

async fn pass(client: TcpStream, server: TcpStream, mut mode: watch::Receiver<Mode>, cuts: Arc<AtomicUsize>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let mut watched = mode.clone();
    let down = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = from_server.read(&mut buffer).await?;
            watched.wait_for(|mode| *mode != Mode::HoldAnswers).await.ok();
            let is_cut = read > 0 && *watched.borrow() == Mode::CutAnswers;
            if is_cut {
                cuts.fetch_add(1, Ordering::SeqCst);
            }
            if read == 0 || is_cut {
                return Ok::<(), std::io::Error>(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        _ = up => {}
        _ = down => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

#[tokio::test]
async fn a_link_that_broke_between_batches_is_replaced_and_costs_no_row() {
    for protocol in ["", "?protocol=2"] {
        let t = unique("between");
        let proxy = Proxy::start().await;
        let sink =
            sink_at(&format!("{}{protocol}", proxy.dsn), &t, Command::rpush(Key::constant(t.as_str()), "v")).await;
        let schema = Schema::builder(t.as_str()).column("v", ColumnType::I64).build().unwrap();
        let db = pipeline(&sink);
        for n in 0..5_i64 {
            // Not repeatable: a row that was sent on a broken connection would end as unknown.
            let receipts = receipts_of(&db, [row(&schema, [n.into()])]).await;
            db.flush().await.unwrap();
            assert_eq!(name(&outcomes_of(receipts).await[0]), "written", "{protocol}");
            proxy.set(Mode::Cut);
            proxy.is_idle().await;
            // The driver must have been notified.
            tokio::time::sleep(Duration::from_millis(50)).await;
            proxy.set(Mode::Pass);
        }
        assert_eq!(ask::<i64>(&["LLEN", &t]).await, 5);
        assert_eq!(proxy.connections.load(Ordering::SeqCst), 5, "each was new");
    }
}

#[tokio::test]
async fn a_reply_that_never_comes_is_unknown_or_repeated() {
    let t = unique("cut");
    let proxy = Proxy::start().await;
    let schema = pairs(&t);
    let rows = || ["a", "b"].map(|k| row(&schema, [format!("{t}:{k}").into(), "v".into()]));
    // Without a retry every row of either command is unknown, and stored.
    for (command, key) in [
        (Command::from(Command::rpush("k", "v")), "a"),
        (Command::set(Key::prefixed(t.as_str(), ["k"]), "v").into(), "b"),
    ] {
        let sink = sink_at(&proxy.dsn, &t, command.clone()).await;
        let db = pipeline(&sink);
        db.prepare(&schema).await.unwrap();
        proxy.set(Mode::CutAnswers);
        let receipts = receipts_of(&db, rows()).await;
        db.flush().await.unwrap();
        for outcome in outcomes_of(receipts).await {
            assert!(matches!(outcome, Outcome::Unknown(_)), "{command:?} {key}: {outcome:?}");
            assert_eq!(outcome.failure().unwrap().class(), Some(ErrorClass::Unknown));
        }
        proxy.set(Mode::Pass);
    }
    // They were executed, although the outcome is unknown.
    assert_eq!(ask::<i64>(&["LLEN", &format!("{t}:a")]).await, 1);

    let sink = sink_at(&proxy.dsn, &t, Command::set(Key::prefixed(t.as_str(), ["k"]), "v")).await;
    let config = config().retry_for(Duration::from_secs(30));
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let keyed = Schema::builder(t.as_str()).column("k", ColumnType::Text).column("v", ColumnType::Text);
    let keyed = keyed.on_conflict(Conflict::replace(["k"])).build().unwrap();
    db.prepare(&keyed).await.unwrap();
    proxy.set(Mode::CutAnswers);
    let receipts = receipts_of(&db, ["a", "b"].map(|k| row(&keyed, [k.into(), "v".into()]))).await;
    let flush = tokio::spawn(async move { db.flush().await });
    proxy.has_cut().await;
    proxy.set(Mode::Pass);
    flush.await.unwrap().unwrap();
    assert!(outcomes_of(receipts).await.iter().all(Outcome::is_written), "strings are set again");
}

#[tokio::test]
async fn an_older_row_is_not_repeated_over_a_newer_one() {
    for keyed in [false, true] {
        let t = unique("norder");
        let proxy = Proxy::start().await;
        let schema = Schema::builder(t.as_str()).column("k", ColumnType::Text).column("v", ColumnType::Text);
        let conflict = if keyed { Conflict::replace(["k"]) } else { Conflict::none() };
        let schema = schema.on_conflict(conflict).build().unwrap();
        let sink = sink_at(&proxy.dsn, &t, Command::set("k", "v")).await;
        // Each row is a batch, and they are written in any order unless a key is declared.
        let config =
            PipelineConfig::default().retry_for(Duration::from_secs(30)).flush_interval(Duration::from_millis(1));
        let db = BatchSql::builder(sink).config(config).start().unwrap();
        db.prepare(&schema).await.unwrap();
        proxy.set(Mode::CutAnswers);
        let old = receipts_of(&db, [row(&schema, [t.as_str().into(), "old".into()])]).await;
        proxy.has_cut().await;
        proxy.set(Mode::Pass);
        let new = receipts_of(&db, [row(&schema, [t.as_str().into(), "new".into()])]).await;
        assert!(outcomes_of(new).await[0].is_written());
        // With a declared key, the new row waits for the retry; otherwise there is no retry.
        assert_eq!(name(&outcomes_of(old).await[0]), if keyed { "written" } else { "unknown" });
        assert_eq!(ask::<String>(&["GET", &t]).await, "new");
    }
}

#[tokio::test]
async fn a_failover_behind_one_name_is_followed() {
    // One address whose target changes, as with DNS or a virtual address.
    let (old, new) = (Server::start(Kind::Redis, &[]), Server::start(Kind::Redis, &[]));
    let place = |server: &Server| server.dsn().trim_start_matches("redis://").to_owned();
    let (sender, target) = watch::channel(place(&old));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name_of_both = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let place = target.borrow().clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(place).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let sink = sink_at(&name_of_both, "t", Command::set("k", "v")).await;
    let schema = pairs("t");
    // Two connections to the old server.
    let held = [sink.acquire().await.unwrap(), sink.acquire().await.unwrap()];
    drop(held);
    assert_eq!(sink.pool().unwrap().idle, 2);
    ask_at::<()>(old.dsn(), &["REPLICAOF", "127.0.0.1", "1"]).await;
    sender.send(place(&new)).unwrap();
    assert_eq!(write(&sink, [row(&schema, ["a".into(), "v".into()])]).await, ["expired READONLY"]);
    assert_eq!(sink.pool().unwrap().idle, 0, "all of them are of the old one");
    assert_eq!(write(&sink, [row(&schema, ["b".into(), "v".into()])]).await, ["written"]);
    assert_eq!(ask_at::<String>(new.dsn(), &["GET", "b"]).await, "v");
}

#[tokio::test]
async fn a_row_that_the_first_attempt_wrote_is_told_as_ignored() {
    let t = unique("nxcut");
    let proxy = Proxy::start().await;
    let sink = sink_at(&proxy.dsn, &t, Command::set("k", "v")).await;
    let schema = Schema::builder(t.as_str()).column("k", ColumnType::Text).column("v", ColumnType::Text);
    let schema = schema.on_conflict(Conflict::ignore(["k"])).build().unwrap();
    let config = config().retry_for(Duration::from_secs(30));
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    db.prepare(&schema).await.unwrap();
    proxy.set(Mode::CutAnswers);
    let receipts = receipts_of(&db, [row(&schema, [t.as_str().into(), "v".into()])]).await;
    let flush = tokio::spawn(async move { db.flush().await });
    proxy.has_cut().await;
    proxy.set(Mode::Pass);
    flush.await.unwrap().unwrap();
    assert_eq!(name(&outcomes_of(receipts).await[0]), "ignored");
    assert_eq!(ask::<String>(&["GET", &t]).await, "v");
}

#[tokio::test]
async fn a_batch_that_is_given_up_leaves_no_reply_to_the_next() {
    let t = unique("late");
    let proxy = Proxy::start().await;
    let schema = pairs(&t);
    let sink = sink_at(&format!("{}?max_connections=1", proxy.dsn), &t, Command::raw("INCRBY")).await;
    let config = config().statement_timeout(Duration::from_secs(2));
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    db.prepare(&schema).await.unwrap();
    proxy.set(Mode::HoldAnswers);
    // The late reply of this one is an error.
    let late = receipts_of(&db, [row(&schema, [format!("{t}:n").into(), "x".into()])]).await;
    db.flush().await.unwrap();
    assert!(matches!(outcomes_of(late).await[0], Outcome::Unknown(_)));
    proxy.set(Mode::Pass);
    let next = receipts_of(&db, [row(&schema, [format!("{t}:n").into(), "5".into()])]).await;
    db.flush().await.unwrap();
    assert!(outcomes_of(next).await[0].is_written(), "it has its own reply, on a connection of its own");
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 2);
    assert_eq!(sink.pool().unwrap().in_use, 0);
}

#[tokio::test]
async fn a_server_that_starts_again_is_found() {
    let mut server = Server::start(Kind::Redis, &[]);
    let sink = sink_at(server.dsn(), "t", Command::rpush("k", "v")).await;
    let schema = pairs("t");
    let rows = || [row(&schema, ["k".into(), "v".into()])];
    assert_eq!(write(&sink, rows()).await, ["written"]);
    server.kill();
    let outcome = outcomes(&sink, rows()).await.remove(0);
    assert_eq!(outcome.failure().unwrap().class(), Some(ErrorClass::Transient), "nothing was sent");
    assert!(matches!(outcome, Outcome::Expired(_)));
    let config = config().retry_for(Duration::from_secs(60));
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    db.submit(&rows()[0]).await.unwrap();
    let close = tokio::spawn(async move { db.close(HOUR).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.start_again();
    assert_eq!(close.await.unwrap().balance.written(), 1);
}

#[tokio::test]
async fn every_row_is_accounted_for_while_the_server_is_killed() {
    let mut server = Server::start(Kind::Redis, &["--appendonly", "yes", "--appendfsync", "always"]);
    let sink = sink_at(server.dsn(), "t", Command::sadd(Key::constant("s"), "v")).await;
    let schema = Schema::builder("t").column("v", ColumnType::I64).build().unwrap();
    let config = PipelineConfig::default().flush_size(50);
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let producer = tokio::spawn({
        let db = db.clone();
        async move {
            let mut receipts = Vec::new();
            for v in 0..4_000_i64 {
                receipts.push(db.submit_tracked(&row(&schema, [v.into()])).await.unwrap());
                if v % 50 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            receipts
        }
    });
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.kill();
        server.start_again();
    }
    let receipts = producer.await.unwrap();
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.written(), report.balance.failed()), (4_000, 0), "members of sets are added again");
    assert!(outcomes_of(receipts).await.iter().all(Outcome::is_written));
    assert_eq!(ask_at::<i64>(server.dsn(), &["SCARD", "s"]).await, 4_000);
}
