//! A connection that silently transfers no more data.

use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, Schema, Sink};
use batchsql_redis::{Command, RedisOptions, RedisSink};
use batchsql_testserver::{Kind, LateProxy, Server};

use crate::support::{HOUR, config, row};
use batchsql_testkit::receipts_of;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_got_nothing_says_that_it_does_not_work() {
    let server = Server::start(Kind::Redis, &[]);
    let proxy = LateProxy::start(server.dsn().trim_start_matches("redis://"));
    let options: RedisOptions = format!("redis://{}", proxy.address()).parse().unwrap();
    let sink = RedisSink::with_options(&options.command("t", Command::set("k", "v"))).await.unwrap();
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text);
    let schema = schema.on_conflict(Conflict::replace(["k"])).build().unwrap();

    let mut conn = sink.acquire().await.unwrap();
    let session = sink.session(&mut conn).await.unwrap().unwrap();
    assert_eq!(sink.is_working(&session).await.unwrap(), None, "nothing is sent");
    // The batch comes from a pipeline, because only a pipeline creates rows.
    let db = BatchSql::builder(Held::new(&sink, conn)).config(config().retry_for(Duration::ZERO)).start().unwrap();
    proxy.hold("swallowed");
    receipts_of(&db, [row(&schema, ["swallowed".into(), "v".into()])]).await;
    let flush = tokio::spawn(async move { db.close(HOUR).await });
    proxy.wait_until_held();
    // The server is idle for more than a second, although a batch was sent.
    let noticed = async {
        while sink.is_working(&session).await.unwrap() != Some(false) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), noticed).await.expect("the server is asked");
    flush.abort();
}

/// A sink whose first connection is the one whose session is known.
pub(crate) struct Held {
    sink: RedisSink,
    conn: std::sync::Mutex<Option<<RedisSink as Sink>::Conn>>,
}

impl Held {
    pub(crate) fn new(sink: &RedisSink, conn: <RedisSink as Sink>::Conn) -> Self {
        Self { sink: sink.clone(), conn: std::sync::Mutex::new(Some(conn)) }
    }
}

impl Sink for Held {
    type Conn = <RedisSink as Sink>::Conn;
    type Plan = <RedisSink as Sink>::Plan;

    fn name(&self) -> &'static str {
        "held"
    }

    async fn acquire(&self) -> Result<Self::Conn, batchsql_core::SinkError> {
        let held = self.conn.lock().unwrap().take();
        match held {
            Some(conn) => Ok(conn),
            None => self.sink.acquire().await,
        }
    }

    async fn prepare(&self, conn: &mut Self::Conn, schema: &Schema) -> Result<Self::Plan, batchsql_core::SinkError> {
        self.sink.prepare(conn, schema).await
    }

    async fn write(
        &self,
        conn: &mut Self::Conn,
        plan: &Self::Plan,
        rows: batchsql_core::Rows<'_>,
        attempt: &batchsql_core::Attempt,
    ) -> Result<batchsql_core::Written, batchsql_core::SinkError> {
        self.sink.write(conn, plan, rows, attempt).await
    }
}
