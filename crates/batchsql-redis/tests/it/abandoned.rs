//! Batches that are abandoned and would take effect late. Without ending their connections an old row overwrites a
//! newer one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{
    Attempt, BatchSql, ColumnType, Conflict, Limits, Outcome, Rows, Schema, Session, SessionEnd, Sink, SinkError,
    Written,
};
use batchsql_redis::{Command, RedisConn, RedisPlan, RedisSink};
use batchsql_testserver::{Kind, LateProxy, Server, dsn};
use tokio::task::block_in_place;

use crate::support::{HOUR, ask, ask_at, config, row, sink_at, unique};

/// The sink, with a record of the results of ending sessions.
struct Recorded(RedisSink, Arc<Mutex<Vec<SessionEnd>>>);

impl Sink for Recorded {
    type Conn = RedisConn;
    type Plan = RedisPlan;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn limits(&self, schema: &Schema) -> Limits {
        self.0.limits(schema)
    }

    fn is_repeatable(&self, schema: &Schema) -> bool {
        self.0.is_repeatable(schema)
    }

    fn is_atomic(&self) -> bool {
        self.0.is_atomic()
    }

    fn late_write_limit(&self) -> Option<Duration> {
        self.0.late_write_limit()
    }

    async fn session(&self, conn: &mut RedisConn) -> Result<Option<Session>, SinkError> {
        self.0.session(conn).await
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        let end = self.0.end_session(session).await?;
        self.1.lock().unwrap().push(end);
        Ok(end)
    }

    async fn acquire(&self) -> Result<RedisConn, SinkError> {
        self.0.acquire().await
    }

    async fn prepare(&self, conn: &mut RedisConn, schema: &Schema) -> Result<RedisPlan, SinkError> {
        self.0.prepare(conn, schema).await
    }

    async fn write(
        &self,
        conn: &mut RedisConn,
        plan: &RedisPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        self.0.write(conn, plan, rows, attempt).await
    }
}

fn keyed(table: &str) -> Schema {
    let schema = Schema::builder(table).column("k", ColumnType::Text).column("v", ColumnType::Text);
    schema.on_conflict(Conflict::replace(["k"])).build().unwrap()
}

fn start(sink: &RedisSink) -> (BatchSql, Arc<Mutex<Vec<SessionEnd>>>) {
    start_with(sink, Duration::from_millis(700), Duration::from_secs(60))
}

fn start_with(
    sink: &RedisSink,
    statement_timeout: Duration,
    retry_for: Duration,
) -> (BatchSql, Arc<Mutex<Vec<SessionEnd>>>) {
    let ends = Arc::default();
    let config =
        config().flush_interval(Duration::from_millis(20)).statement_timeout(statement_timeout).retry_for(retry_for);
    let db = BatchSql::builder(Recorded(sink.clone(), Arc::clone(&ends))).config(config).start().unwrap();
    (db, ends)
}

fn place(dsn: &str) -> &str {
    dsn.trim_start_matches("redis://").split(['?', '/']).next().unwrap()
}

fn only(ends: &Mutex<Vec<SessionEnd>>, expected: SessionEnd) {
    let mut ends = ends.lock().unwrap();
    ends.retain(|end| *end != SessionEnd::Pending);
    assert!(!ends.is_empty() && ends.iter().all(|end| *end == expected), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_network_delivers_late_finds_no_connection() {
    for protocol in [2, 3] {
        let t = unique("frozen");
        let proxy = LateProxy::start(place(&dsn(Kind::Redis)));
        let sink =
            sink_at(&format!("redis://{}?protocol={protocol}", proxy.address()), &t, Command::set("k", "v")).await;
        let (db, ends) = start(&sink);
        let schema = keyed(&t);
        db.prepare(&schema).await.unwrap();
        proxy.hold("old-value");
        let write =
            async |v: &str| db.submit_tracked(&row(&schema, [t.as_str().into(), v.into()])).await.unwrap().await;
        let old = write("old-value").await;
        assert!(old.is_written(), "it was repeated: {old:?}");
        assert!(write("new").await.is_written());
        block_in_place(|| proxy.deliver());
        assert_eq!(ask::<String>(&["GET", &t]).await, "new", "protocol {protocol}");
        only(&ends, SessionEnd::Ended);
        db.close(HOUR).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_have_ended_when_their_server_has_started_again() {
    let mut server = Server::start(Kind::Redis, &[]);
    let proxy = LateProxy::start(place(server.dsn()));
    let sink = sink_at(&format!("redis://{}", proxy.address()), "t", Command::set("k", "v")).await;
    let (db, ends) = start(&sink);
    let schema = keyed("t");
    db.prepare(&schema).await.unwrap();
    proxy.hold("old-value");
    let old = db.submit_tracked(&row(&schema, ["k".into(), "old-value".into()])).await.unwrap();
    block_in_place(|| {
        proxy.wait_until_held();
        server.kill();
        server.start_again();
    });
    // Its client ids start again with the same numbers; this one may have that of the old connection.
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(crate::support::looker(server.dsn()).await);
    }
    assert!(old.await.is_written());
    let new = db.submit_tracked(&row(&schema, ["k".into(), "new".into()])).await.unwrap().await;
    assert!(new.is_written(), "{new:?}");
    block_in_place(|| proxy.deliver());
    assert_eq!(ask_at::<String>(server.dsn(), &["GET", "k"]).await, "new");
    only(&ends, SessionEnd::Ended);
    for other in &mut others {
        redis::cmd("PING").exec_async(other).await.expect("nobody else was killed");
    }
    db.close(HOUR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_end_clients_writes_on_without_an_order() {
    for rights in ["-client -info", "-client", "-client|kill", "-client|list", "-info"] {
        let t = unique("acl");
        let mut user = vec!["ACL", "SETUSER", t.as_str(), "on", ">pw", "~*", "&*", "+@all"];
        user.extend(rights.split(' '));
        ask::<()>(&user).await;
        let proxy = LateProxy::start(place(&dsn(Kind::Redis)));
        let sink = sink_at(&format!("redis://{}:pw@{}", &*t, proxy.address()), &t, Command::set("k", "v")).await;
        let (db, ends) = start(&sink);
        let schema = keyed(&t);
        db.prepare(&schema).await.unwrap();
        proxy.hold("old-value");
        let write =
            async |v: &str| db.submit_tracked(&row(&schema, [t.as_str().into(), v.into()])).await.unwrap().await;
        assert!(write("old-value").await.is_written(), "{rights}");
        assert!(write("new").await.is_written(), "{rights}");
        only(&ends, SessionEnd::Impossible);
        db.close(HOUR).await;
        block_in_place(|| proxy.deliver());
    }
}

#[tokio::test]
async fn where_the_user_says_so_nothing_is_killed() {
    let t = unique("waits");
    let dsn = format!("{}?abandoned_writes=wait&late_write_limit=7s", dsn(Kind::Redis));
    let sink = sink_at(&dsn, &t, Command::set("k", "v")).await;
    let mut conn = sink.acquire().await.unwrap();
    assert!(sink.session(&mut conn).await.unwrap().is_none());
    assert_eq!(sink.late_write_limit(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn in_a_cluster_only_the_connection_to_the_node_that_stalls_is_ended() {
    let server = Server::start(Kind::RedisCluster, &[]);
    let sink = sink_at(&format!("{}&node_timeout=1", server.dsn()), "t", Command::set("k", "v")).await;
    let (db, ends) = start_with(&sink, Duration::from_secs(20), Duration::ZERO);
    let schema = keyed("t");
    let write = async |rows: [(&str, &str); 2]| {
        let mut receipts = Vec::new();
        for (k, v) in rows {
            receipts.push(db.submit_tracked(&row(&schema, [k.into(), v.into()])).await.unwrap());
        }
        let mut outcomes = Vec::new();
        for receipt in receipts {
            outcomes.push(receipt.await);
        }
        outcomes
    };
    // The slots 12182 and 5061, of the third and the first node.
    let (stalling, other) = ("foo", "bar");
    // A slow machine may need several attempts.
    while !write([(stalling, "first"), (other, "first")]).await.iter().all(Outcome::is_written) {}
    ends.lock().unwrap().clear();
    let seed = server.dsn().split('?').next().unwrap();
    type Range = (i64, i64, (String, u16, String, redis::Value));
    let ranges: Vec<Range> = ask_at(seed, &["CLUSTER", "SLOTS"]).await;
    let node = |slot: i64| {
        let (_, _, (host, port, ..)) = ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).unwrap();
        format!("redis://{host}:{port}")
    };
    let (stalling_node, other_node) = (node(12182), node(5061));
    let clients = async || -> Vec<String> {
        let list: String = ask_at(&other_node, &["CLIENT", "LIST", "TYPE", "normal"]).await;
        let last = |line: &str| line.contains(" cmd=set ").then(|| line.split(' ').next().unwrap().to_owned());
        list.lines().filter_map(last).collect()
    };
    let before = clients().await;
    assert!(!before.is_empty());
    ask_at::<()>(&stalling_node, &["CLIENT", "PAUSE", "600000", "WRITE"]).await;
    let outcomes = write([(stalling, "old"), (other, "old")]).await;
    assert!(matches!(outcomes[0], Outcome::Unknown(_)), "{outcomes:?}");
    assert!(outcomes[1].is_written(), "{outcomes:?}");
    let ending = async {
        while !ends.lock().unwrap().contains(&SessionEnd::Ended) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ending).await.expect("it is ended");
    only(&ends, SessionEnd::Ended);
    ask_at::<()>(&stalling_node, &["CLIENT", "UNPAUSE"]).await;
    // Commands that had waited in the node would be executed by now.
    assert_eq!(ask_at::<String>(&stalling_node, &["GET", stalling]).await, "first");
    let after = clients().await;
    assert!(before.iter().all(|client| after.contains(client)), "{before:?} {after:?}");
    while !write([(stalling, "new"), (other, "new")]).await.iter().all(Outcome::is_written) {}
    db.close(HOUR).await;
}
