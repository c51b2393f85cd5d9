//! Writes that are abandoned and would take effect late: behind a lock, or because the network delivers them
//! late. Without ending their sessions, in each of the first tests an old row overwrites a newer one.

use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, Outcome, PipelineConfig, Session, SessionEnd, Sink};
use batchsql_mysql::sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use batchsql_mysql::sqlx::{ConnectOptions, Connection, Executor, Row};
use batchsql_mysql::{MySqlOptions, MySqlSink};
use batchsql_testserver::{Kind, LateProxy, Server};
use tokio::task::block_in_place;

use crate::support::{Database, HOUR, host_of, row, schema, with_parameters, with_user};

const TABLE: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)";

fn pipeline(sink: &MySqlSink, retry_for: Duration) -> BatchSql {
    let config = PipelineConfig::default()
        .flush_interval(Duration::from_millis(20))
        .statement_timeout(Duration::from_millis(700))
        .retry_for(retry_for);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

fn pool_options(connections: u32) -> MySqlPoolOptions {
    MySqlPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(5))
}

/// A sink with the test's own pool.
fn on_own_pool(dsn: &str, connections: u32) -> MySqlSink {
    let options: MySqlConnectOptions = dsn.parse().unwrap();
    MySqlSink::new(pool_options(connections).connect_lazy_with(options))
}

/// Repeats a query until it returns the expected result.
async fn until(db: &Database, sql: &str, expected: &str) {
    let looking = async {
        while db.read(sql).await != [expected] {
            // The server refreshes its list of transactions after 100 ms without a query.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.unwrap_or_else(|_| panic!("{sql}: not {expected}"));
}

#[tokio::test]
async fn a_write_that_waits_for_a_lock_is_ended_before_newer_rows_are_written() {
    for is_own_pool in [false, true] {
        let db = Database::new(&format!("{TABLE}; INSERT INTO t VALUES (1, 'there')")).await;
        let sink = if is_own_pool { on_own_pool(&db.dsn, 4) } else { db.sink.clone() };
        let schema = schema(Conflict::update(["id"]));
        let pipeline = pipeline(&sink, Duration::ZERO);
        pipeline.prepare(&schema).await.unwrap();
        let mut other = db.connection().await;
        let mut locking = other.begin().await.unwrap();
        locking.execute("UPDATE t SET note = 'theirs' WHERE id = 1").await.unwrap();
        let old = [1, 2].map(|id| row(&schema, id, "old"));
        let old = [pipeline.submit_tracked(&old[0]).await.unwrap(), pipeline.submit_tracked(&old[1]).await.unwrap()];
        for old in old {
            let old = old.await;
            assert!(matches!(old, Outcome::Unknown(_)), "{old:?}");
        }
        // A slow machine may need several attempts.
        while !pipeline.submit_tracked(&row(&schema, 2, "new")).await.unwrap().await.is_written() {}
        locking.rollback().await.unwrap();
        let open = format!(
            "SELECT COUNT(*) FROM information_schema.INNODB_TRX JOIN information_schema.PROCESSLIST
             ON trx_mysql_thread_id = ID WHERE DB = '{}'",
            db.name
        );
        until(&db, &open, "0").await;
        assert_eq!(db.read("SELECT id, note FROM t ORDER BY id").await, ["1|there", "2|new"], "own: {is_own_pool}");
        pipeline.close(HOUR).await;
    }
}

fn through(proxy: &LateProxy, dsn: &str) -> String {
    with_parameters(&dsn.replace(host_of(dsn), &proxy.address()), "ssl-mode=DISABLED")
}

/// The old row is sent and held back by the network, retried and overwritten; then the network delivers it.
async fn deliver_late(db: &Database, proxy: &LateProxy, sink: &MySqlSink) {
    let schema = schema(Conflict::update(["id"]));
    let pipeline = pipeline(sink, Duration::from_secs(60));
    pipeline.prepare(&schema).await.unwrap();
    proxy.hold("old-value");
    let old = pipeline.submit_tracked(&row(&schema, 1, "old-value")).await.unwrap().await;
    assert!(old.is_written(), "it was repeated: {old:?}");
    let new = pipeline.submit_tracked(&row(&schema, 1, "new")).await.unwrap().await;
    assert!(new.is_written(), "{new:?}");
    block_in_place(|| proxy.deliver());
    assert_eq!(db.read("SELECT id, note FROM t").await, ["1|new"]);
    pipeline.close(HOUR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_network_delivers_late_finds_no_session() {
    for is_own_pool in [false, true] {
        let db = Database::new(TABLE).await;
        let proxy = LateProxy::start(host_of(&db.dsn));
        let dsn = through(&proxy, &db.dsn);
        let sink = if is_own_pool { on_own_pool(&dsn, 4) } else { MySqlSink::connect(&dsn).await.unwrap() };
        deliver_late(&db, &proxy, &sink).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_to_write_are_enough_to_end_a_session() {
    let db = Database::new(TABLE).await;
    let (dsn, _) = user_of(&db, "").await;
    let proxy = LateProxy::start(host_of(&db.dsn));
    let sink = MySqlSink::connect(&through(&proxy, &dsn)).await.unwrap();
    deliver_late(&db, &proxy, &sink).await;
}

/// A connection of the sink and the name of its session.
async fn named(sink: &MySqlSink) -> (<MySqlSink as Sink>::Conn, Session) {
    let mut conn = sink.acquire().await.unwrap();
    let session = sink.session(&mut conn).await.unwrap().expect("it has a name");
    (conn, session)
}

/// Ends a session as the pipeline does: again while a retry is requested.
async fn end(sink: &MySqlSink, session: &Session) -> SessionEnd {
    let ending = async {
        loop {
            match sink.end_session(session).await {
                Ok(SessionEnd::Pending) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(end) => return end,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ending).await.expect("it ends")
}

/// The test's own user, whose sessions are counted.
async fn user_of(db: &Database, more: &str) -> (String, String) {
    let user = db.user("secret", more).await;
    db.run(&format!("GRANT INSERT, UPDATE, SELECT ON {}.t TO '{user}'@'%'", db.name)).await;
    let dsn = with_user(&db.dsn, &user, "secret");
    (dsn, format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '{user}'"))
}

#[tokio::test]
async fn a_session_is_ended_while_every_connection_of_the_pool_is_taken() {
    let db = Database::new(TABLE).await;
    let (dsn, sessions) = user_of(&db, "").await;
    let sink = on_own_pool(&dsn, 1);
    let (conn, session) = named(&sink).await;
    assert_eq!(end(&sink, &session).await, SessionEnd::Ended);
    // The connection that ended it is kept for the next one.
    assert_eq!(db.read(&sessions).await, ["1"]);
    drop(conn);
    // Once more, when it is gone.
    assert_eq!(end(&sink, &session).await, SessionEnd::Ended);
}

#[tokio::test]
async fn a_session_is_ended_from_the_pool_where_the_server_takes_no_further_connection() {
    let db = Database::new(TABLE).await;
    let (dsn, sessions) = user_of(&db, "WITH MAX_USER_CONNECTIONS 2").await;
    let sink = on_own_pool(&dsn, 2);
    let ((conn, session), other) = (named(&sink).await, sink.acquire().await.unwrap());
    drop(other);
    let options: MySqlConnectOptions = dsn.parse().unwrap();
    assert!(options.connect().await.is_err(), "the user has its connections");
    assert_eq!(end(&sink, &session).await, SessionEnd::Ended);
    // It was returned to the pool.
    assert_eq!(db.read(&sessions).await, ["1"]);
    drop(conn);
}

#[tokio::test]
async fn a_connection_for_ending_sessions_that_was_lost_is_replaced() {
    let db = Database::new(TABLE).await;
    let (dsn, sessions) = user_of(&db, "").await;
    let sink = on_own_pool(&dsn, 2);
    for _ in 0..2 {
        let (conn, session) = named(&sink).await;
        assert_eq!(end(&sink, &session).await, SessionEnd::Ended);
        drop(conn);
        for id in db.read(&sessions.replace("COUNT(*)", "ID")).await {
            db.run(&format!("KILL {id}")).await;
        }
        until(&db, &sessions, "0").await;
    }
}

#[tokio::test]
async fn sessions_of_another_user_or_server_are_left_alone() {
    let db = Database::new(TABLE).await;
    let sink = on_own_pool(&db.dsn, 2);
    let (mut conn, session) = named(&sink).await;
    let user = db.user("secret", "").await;
    db.run(&format!("GRANT ALL ON {}.* TO '{user}'@'%'", db.name)).await;
    let options: MySqlConnectOptions = with_user(&db.dsn, &user, "secret").parse().unwrap();
    sink.mysql_pool().set_connect_options(options);
    assert_eq!(end(&sink, &session).await, SessionEnd::Impossible);
    assert!(sink.session(&mut conn).await.unwrap().is_some(), "it goes on");
    // The address now leads to another server.
    let server = Server::start(Kind::MySql, &[]);
    let sink = on_own_pool(&db.dsn, 2);
    let (mut conn, session) = named(&sink).await;
    sink.mysql_pool().set_connect_options(server.dsn().parse().unwrap());
    assert_eq!(end(&sink, &session).await, SessionEnd::Impossible);
    assert!(sink.session(&mut conn).await.unwrap().is_some(), "it goes on");
}

#[tokio::test]
async fn nothing_is_killed_where_the_user_says_so() {
    let db = Database::new(TABLE).await;
    let dsn = with_parameters(&db.dsn, "abandoned_writes=wait&late_write_limit=7s");
    let sink = MySqlSink::with_options(&dsn.parse::<MySqlOptions>().unwrap()).await.unwrap();
    let mut conn = sink.acquire().await.unwrap();
    assert!(sink.session(&mut conn).await.unwrap().is_none());
    assert_eq!(sink.late_write_limit(), Some(Duration::from_secs(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_has_ended_when_its_server_has_restarted_and_its_id_may_be_of_another() {
    let mut server = Server::start(Kind::MySql, &[]);
    let sink = on_own_pool(server.dsn(), 2);
    // A server that has just started looks like a restarted one.
    let mut looker = MySqlConnection::connect(server.dsn()).await.unwrap();
    loop {
        let row = looker.fetch_one("SHOW STATUS LIKE 'Uptime'").await.unwrap();
        if row.get::<String, _>(1).parse::<u64>().unwrap() >= 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (conn, session) = named(&sink).await;
    let row = looker.fetch_one("SELECT CAST(MAX(ID) AS CHAR) FROM information_schema.PROCESSLIST").await.unwrap();
    let id: u64 = row.get::<String, _>(0).parse().unwrap();
    block_in_place(|| {
        server.kill();
        server.start_again();
    });
    // Another session of the same user and host with its id.
    let mut others = Vec::new();
    loop {
        let mut other = MySqlConnection::connect(server.dsn()).await.unwrap();
        let row = other.fetch_one("SELECT CAST(CONNECTION_ID() AS CHAR)").await.unwrap();
        let other_id: u64 = row.get::<String, _>(0).parse().unwrap();
        assert!(other_id <= id, "the ids of this server do not begin anew");
        others.push(other);
        if other_id == id {
            break;
        }
    }
    assert_eq!(end(&sink, &session).await, SessionEnd::Ended);
    for other in &mut others {
        other.ping().await.expect("nobody else was killed");
    }
    drop(conn);
}
