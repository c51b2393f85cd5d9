//! Broken connections and abandoned writes: the outcomes of their rows, and that nothing stays open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering as Atomic};
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, ErrorClass, Expr, Ordering, Outcome, PipelineConfig, Schema};
use batchsql_mysql::MySqlSink;
use batchsql_mysql::sqlx::{Connection, Executor};
use batchsql_testserver::{Kind, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Database, HOUR, pipeline, row, schema, submitted, with_parameters, write};

/// The point at which the connection breaks, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Cut {
    Nowhere,
    /// Before a statement that is to be prepared reaches the server.
    Prepare,
    /// Before the server gets a statement with its rows.
    Execute,
    /// After the server has answered a statement with its rows: the answer is lost.
    Executed,
    /// After the server has answered a COMMIT: the answer is lost.
    Committed,
    /// As `Executed`, but the answer is replaced by the error of a proxy that has lost its server.
    ExecutedBehindProxy,
    /// The same, and the connection to the proxy stays usable.
    ExecutedBehindLivingProxy,
    /// As `Committed`, but the answer is replaced by the error of a killed session.
    CommittedAndKilled,
    /// The statement does not reach the server: TiDB answers that its transaction has failed and may be repeated (8022).
    FailedAtTiDb,
    /// As `Executed`, but the answer is replaced by the error without a number of its own of Vitess (1105).
    ExecutedAtVitess,
}

/// A packet with an error.
fn error_packet(code: u16, state: &str) -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 1, 0xff];
    packet.extend_from_slice(&code.to_le_bytes());
    packet.extend_from_slice(format!("#{state}as a proxy says it").as_bytes());
    packet[0] = (packet.len() - 4) as u8;
    packet
}

/// Whether further results follow on these packets, of which each is the result of a statement without rows: the server has not executed
/// all statements of a request.
fn expects_more(mut packets: &[u8]) -> bool {
    const MORE_RESULTS: u8 = 8;
    loop {
        let Some(length) = packets.first_chunk::<3>() else { return true };
        let length = 4 + usize::from(length[0]) + (usize::from(length[1]) << 8);
        let Some(packet) = packets.get(..length) else { return true };
        packets = &packets[length..];
        if packets.is_empty() {
            // Two numbers of one byte are between the kind and the status.
            return packet[4] == 0 && packet.get(7).is_some_and(|status| status & MORE_RESULTS != 0);
        }
    }
}

/// A proxy before the server that can cut connections. Without TLS, so that it can read the bytes.
struct Proxy {
    port: u16,
    cut: Arc<AtomicU8>,
    /// Statements with rows that are let through before the cut.
    spared: Arc<AtomicU8>,
}

impl Proxy {
    async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, spared) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicU8::new(0)));
        let proxy = Self { port, cut: Arc::clone(&cut), spared: Arc::clone(&spared) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&cut), Arc::clone(&spared)));
            }
        });
        proxy
    }

    fn cut(&self, place: Cut, after: u8) {
        self.spared.store(after, Atomic::SeqCst);
        self.cut.store(place as u8, Atomic::SeqCst);
    }

    fn was_cut(&self) -> bool {
        self.cut.load(Atomic::SeqCst) == Cut::Nowhere as u8
    }
}

/// Forwards bytes in both directions until one side closes or the connection is cut.
async fn carry(mut client: TcpStream, mut server: TcpStream, cut: Arc<AtomicU8>, spared: Arc<AtomicU8>) {
    let (mut request, mut reply) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    // Bytes of the request's packet that are still to come: commands are only searched at the start of a
    // packet.
    let mut rest = 0_usize;
    let (mut loses_reply, mut is_commit, mut answer, mut answers) = (false, false, None, Vec::new());
    let mut goes_on = false;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(len @ 1..) = read else { return };
                let packet = &request[..len];
                let begins = rest == 0 && len > 4;
                if begins {
                    rest = 4 + (packet[0] as usize | (packet[1] as usize) << 8 | (packet[2] as usize) << 16);
                }
                rest = rest.saturating_sub(len);
                let place = cut.load(Atomic::SeqCst);
                let is = |cut: Cut| place == cut as u8;
                let meets = begins && match packet[4] {
                    0x16 => is(Cut::Prepare),
                    0x17 => {
                        let executed =
                            [Cut::Executed, Cut::ExecutedBehindProxy, Cut::ExecutedBehindLivingProxy, Cut::ExecutedAtVitess];
                        let wanted = is(Cut::Execute) || is(Cut::FailedAtTiDb) || executed.into_iter().any(is);
                        wanted && spared.fetch_update(Atomic::SeqCst, Atomic::SeqCst, |n| n.checked_sub(1)).is_err()
                    }
                    0x03 => (is(Cut::Committed) || is(Cut::CommittedAndKilled)) && packet.windows(10).any(|words| words == b"COMMIT AND"),
                    _ => false,
                };
                if meets {
                    cut.store(Cut::Nowhere as u8, Atomic::SeqCst);
                    if is(Cut::Prepare) || is(Cut::Execute) {
                        return;
                    }
                    if is(Cut::FailedAtTiDb) {
                        // The connection stays as it is.
                        let _ = client.write_all(&error_packet(8022, "HY000")).await;
                        continue;
                    }
                    loses_reply = true;
                    is_commit = is(Cut::Committed) || is(Cut::CommittedAndKilled);
                    let is_behind_proxy = is(Cut::ExecutedBehindProxy) || is(Cut::ExecutedBehindLivingProxy);
                    answer = is_behind_proxy.then(|| error_packet(2013, "HY000"));
                    goes_on = is(Cut::ExecutedBehindLivingProxy);
                    if is(Cut::ExecutedAtVitess) {
                        answer = Some(error_packet(1105, "HY000"));
                    }
                    if is(Cut::CommittedAndKilled) {
                        answer = Some(error_packet(1317, "70100"));
                    }
                }
                if server.write_all(packet).await.is_err() { return }
            }
            read = server.read(&mut reply) => {
                let Ok(len @ 1..) = read else { return };
                if is_commit {
                    answers.extend_from_slice(&reply[..len]);
                    if expects_more(&answers) {
                        continue;
                    }
                }
                if let Some(answer) = answer.take() {
                    let _ = client.write_all(&answer).await;
                }
                if std::mem::take(&mut goes_on) {
                    loses_reply = false;
                    continue;
                }
                if loses_reply || client.write_all(&reply[..len]).await.is_err() { return }
            }
        }
    }
}

/// A sink that reaches the database through a proxy.
async fn through_proxy(db: &Database) -> (Proxy, MySqlSink) {
    let (_, rest) = db.dsn.split_once('@').unwrap();
    let (server, path) = rest.split_once('/').unwrap();
    let proxy = Proxy::start(server.to_owned()).await;
    let (user, _) = db.dsn.split_once('@').unwrap();
    let dsn =
        with_parameters(&format!("{user}@127.0.0.1:{}/{path}", proxy.port), "ssl-mode=DISABLED&max_connections=1");
    (proxy, MySqlSink::connect(&dsn).await.unwrap())
}

const TABLE: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, note LONGTEXT)";

/// The outcomes of two rows after a cut connection, and the content of the table.
async fn cut(conflict: Conflict, place: Cut) -> (Vec<&'static str>, Vec<String>) {
    let db = Database::new(TABLE).await;
    let (proxy, sink) = through_proxy(&db).await;
    let pipeline = pipeline(&sink);
    let schema = schema(conflict);
    assert!(submitted(&pipeline, [row(&schema, 1, "a")]).await[0].is_written());
    proxy.cut(place, 0);
    // Two rows: a statement that this connection has not prepared yet.
    let outcomes = submitted(&pipeline, [row(&schema, 2, "b"), row(&schema, 3, "c")]).await;
    assert!(proxy.was_cut(), "{place:?}");
    let names = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
    // The sink continues with another connection.
    assert!(submitted(&pipeline, [row(&schema, 4, "d")]).await[0].is_written());
    pipeline.close(HOUR).await;
    (names, db.read("SELECT id FROM t ORDER BY id").await)
}

#[tokio::test]
async fn a_link_that_breaks_before_anything_was_sent_loses_nothing() {
    for conflict in [Conflict::none(), Conflict::ignore(["id"]), Conflict::update(["id"])] {
        let (names, table) = cut(conflict, Cut::Prepare).await;
        assert_eq!((names, table), (vec!["written"; 2], ["1", "2", "3", "4"].map(String::from).to_vec()));
    }
}

#[tokio::test]
async fn a_lost_answer_is_unknown_where_a_repeat_could_harm_and_is_repeated_elsewhere() {
    let all = || ["1", "2", "3", "4"].map(String::from).to_vec();
    let (names, table) = cut(Conflict::none(), Cut::Executed).await;
    assert_eq!((names, table), (vec!["unknown"; 2], all()), "the rows are there, and nobody can know");
    let (names, table) = cut(Conflict::none(), Cut::Execute).await;
    assert_eq!((names, table), (vec!["unknown"; 2], ["1", "4"].map(String::from).to_vec()));
    let (names, table) = cut(Conflict::update(["id"]), Cut::Executed).await;
    assert_eq!((names, table), (vec!["written"; 2], all()));
    let (names, table) = cut(Conflict::update(["id"]), Cut::Execute).await;
    assert_eq!((names, table), (vec!["written"; 2], all()));
    let (names, table) = cut(Conflict::ignore(["id"]), Cut::Executed).await;
    assert_eq!((names, table), (vec!["ignored"; 2], all()), "the repeat finds rows, its own or those of others");
    // TiDB says that it has written nothing.
    for conflict in [Conflict::none(), Conflict::ignore(["id"]), Conflict::update(["id"])] {
        let (names, table) = cut(conflict, Cut::FailedAtTiDb).await;
        assert_eq!((names, table), (vec!["written"; 2], all()));
    }
    // Vitess does not say whether it has.
    let (names, table) = cut(Conflict::none(), Cut::ExecutedAtVitess).await;
    assert_eq!((names, table), (vec!["unknown"; 2], all()));
    let (names, table) = cut(Conflict::update(["id"]), Cut::ExecutedAtVitess).await;
    assert_eq!((names, table), (vec!["written"; 2], all()));
    // A proxy reports a lost server in an error packet, as if the server had rejected the rows.
    for place in [Cut::ExecutedBehindProxy, Cut::ExecutedBehindLivingProxy] {
        let (names, table) = cut(Conflict::none(), place).await;
        assert_eq!((names, table), (vec!["unknown"; 2], all()), "{place:?}");
    }
}

#[tokio::test]
async fn after_a_lost_reply_an_equal_version_is_written_only_if_every_column_matches() {
    let db = Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY, note LONGTEXT, v BIGINT)").await;
    let (proxy, sink) = through_proxy(&db).await;
    let pipeline = pipeline(&sink);
    let newer = Conflict::update(["id"]).only_if_newer("v");
    for (first, rule, expected) in [(0, newer.clone(), "written"), (10, newer.set("note", Expr::keep()), "ignored")] {
        db.run(&format!("INSERT INTO t VALUES ({first}, 'other', 3), ({}, 'a', 4)", first + 1)).await;
        let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text);
        let schema = schema.column("v", ColumnType::I64).on_conflict(rule).build().unwrap();
        pipeline.prepare(&schema).await.unwrap();
        proxy.cut(Cut::Committed, 0);
        let row = |id: i64| schema.row().set_all([id.into(), "a".into(), 3_i64.into()]).unwrap().finish().unwrap();
        let outcomes = submitted(&pipeline, (first..first + 4).map(row)).await;
        assert!(proxy.was_cut());
        let names: Vec<&str> = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
        assert_eq!(names, ["ignored", "ignored", expected, expected]);
    }
}

/// Rows that together need two statements.
fn large(schema: &Schema) -> impl Iterator<Item = batchsql_core::DynRow> {
    (10..28).map(|id| row(schema, id, "x".repeat(1_000_000)))
}

async fn cut_large(place: Cut, after: u8) -> (Vec<&'static str>, Vec<String>) {
    let db = Database::new(TABLE).await;
    let (proxy, sink) = through_proxy(&db).await;
    let config = PipelineConfig::default()
        .flush_interval(HOUR)
        .flush_bytes(64 << 20)
        .buffer_bytes(128 << 20)
        .ordering(Ordering::PerTable);
    let pipeline = BatchSql::builder(sink).config(config).start().unwrap();
    let schema = schema(Conflict::none());
    pipeline.prepare(&schema).await.unwrap();
    proxy.cut(place, after);
    let outcomes = submitted(&pipeline, large(&schema)).await;
    assert!(proxy.was_cut(), "{place:?}");
    (outcomes.iter().map(|outcome| outcome.kind().name()).collect(), db.read("SELECT COUNT(*) FROM t").await)
}

#[tokio::test]
async fn of_several_statements_all_or_nothing_is_written() {
    // The statement with the first rows arrives, the one with the others does not.
    let (names, count) = cut_large(Cut::Execute, 1).await;
    assert_eq!((names, count), (vec!["written"; 18], vec!["18".to_owned()]), "it was retried");
    let (names, count) = cut_large(Cut::Committed, 0).await;
    assert_eq!((names, count), (vec!["unknown"; 18], vec!["18".to_owned()]));
    let (names, count) = cut_large(Cut::CommittedAndKilled, 0).await;
    assert_eq!((names, count), (vec!["unknown"; 18], vec!["18".to_owned()]));
}

#[tokio::test]
async fn a_write_that_is_given_up_closes_its_connection_and_leaves_no_transaction() {
    let db = Database::with(&format!("{TABLE}; INSERT INTO t VALUES (27, 'old')"), "max_connections=1").await;
    let mut other = db.connection().await;
    let mut transaction = other.begin().await.unwrap();
    transaction.execute("UPDATE t SET note = 'theirs' WHERE id = 27").await.unwrap();
    let config = PipelineConfig::default()
        .statement_timeout(Duration::from_millis(1_500))
        .retry_for(Duration::ZERO)
        .flush_interval(HOUR)
        .flush_bytes(64 << 20)
        .buffer_bytes(128 << 20)
        .ordering(Ordering::PerTable);
    let pipeline = BatchSql::builder(db.sink.clone()).config(config).start().unwrap();
    let schema = schema(Conflict::update(["id"]));
    // The second statement waits for the lock until the timeout. No COMMIT was sent, so nothing can be
    // written.
    for outcome in submitted(&pipeline, large(&schema)).await {
        match outcome {
            Outcome::Expired(failed) => assert_eq!(failed.class(), Some(ErrorClass::Transient)),
            other => panic!("{other:?}"),
        }
    }
    // A statement that is its own transaction may be executed when the lock is released.
    for outcome in submitted(&pipeline, [row(&schema, 27, "late")]).await {
        assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    }
    // The only connection was not returned: another one replaces it at once.
    assert!(write(&db.sink, [row(&schema, 1, "a")]).await == ["written"]);
    transaction.rollback().await.unwrap();
    let open = format!(
        "SELECT COUNT(*) FROM information_schema.INNODB_TRX JOIN information_schema.PROCESSLIST
         ON trx_mysql_thread_id = ID WHERE DB = '{}'",
        db.name
    );
    while db.read(&open).await != ["0"] {
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let table = db.read("SELECT id, note FROM t ORDER BY id").await;
    assert!(table == ["1|a", "27|old"] || table == ["1|a", "27|late"], "{table:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_waited_for() {
    let mut server = Server::start(Kind::MySql, &[]);
    let db = Database::on(server.dsn(), TABLE, "connect_timeout=0.5").await;
    let schema = schema(Conflict::ignore(["id"]));
    let pipeline = pipeline(&db.sink);
    assert!(submitted(&pipeline, [row(&schema, 1, "a")]).await[0].is_written());
    server.stop();
    let waiting = tokio::spawn({
        let (pipeline, row) = (pipeline.clone(), row(&schema, 2, "b"));
        async move { submitted(&pipeline, [row]).await }
    });
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(!waiting.is_finished());
    tokio::task::block_in_place(|| server.start_again());
    assert!(waiting.await.unwrap()[0].is_written());
    // Killed while statements run: every row that is reported as written exists.
    let rows =
        Schema::builder("t").column("id", ColumnType::I64).on_conflict(Conflict::ignore(["id"])).build().unwrap();
    let writing = tokio::spawn({
        let pipeline = pipeline.clone();
        async move {
            let mut written = 0;
            for batch in 1..40_i64 {
                let rows = (0..50).map(|n| rows.row().set("id", batch * 100 + n).unwrap().finish().unwrap());
                let outcomes = submitted(&pipeline, rows).await;
                // A retry after a lost answer finds its own rows.
                written += outcomes.iter().filter(|o| o.is_written() || o.kind().name() == "ignored").count();
            }
            written
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::task::block_in_place(|| server.kill());
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::task::block_in_place(|| server.start_again());
    let written = writing.await.unwrap();
    assert_eq!(written, 39 * 50);
    assert_eq!(db.read("SELECT COUNT(*) FROM t WHERE id >= 100").await, [written.to_string()]);
}

#[tokio::test]
async fn connections_go_back_to_the_pool_when_no_batch_wants_them() {
    let db = Database::with(TABLE, "max_connections=8").await;
    let schema = schema(Conflict::none());
    let pipeline = pipeline(&db.sink);
    for id in 0..50 {
        assert!(submitted(&pipeline, [row(&schema, id, "a")]).await[0].is_written());
    }
    while db.pool().num_idle() < db.pool().size() as usize {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let state = batchsql_core::Sink::pool(&db.sink).unwrap();
    assert_eq!((state.in_use, state.idle, state.max), (0, db.pool().num_idle(), 8));
    // The pool can be closed, which waits for every connection.
    tokio::time::timeout(Duration::from_secs(60), db.pool().close()).await.unwrap();
}

#[test]
fn a_sink_may_outlive_its_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let db = runtime.block_on(Database::new(TABLE));
    let schema = schema(Conflict::none());
    assert_eq!(runtime.block_on(write(&db.sink, [row(&schema, 1, "a")])), ["written"]);
    drop(runtime);
    drop(db);
}
