//! Settings with which a crash of the server loses rows that it has confirmed.

use std::time::Duration;

use batchsql_core::ErrorClass;
use batchsql_redis::RedisSink;
use batchsql_testserver::{Kind, Server};

use crate::support::{ask_at, looker, pipeline, unique};

#[tokio::test]
async fn settings_that_may_lose_rows_are_reported() {
    let server = Server::start(Kind::Redis, &[]);
    let db = pipeline(&RedisSink::connect(server.dsn()).await.unwrap());
    let set = async |name: &str, value: &str| ask_at::<()>(server.dsn(), &["CONFIG", "SET", name, value]).await;
    for (appendonly, appendfsync, reported) in [
        ("no", "always", Some("appendonly is no")),
        ("yes", "everysec", Some("appendfsync is everysec")),
        ("yes", "no", Some("appendfsync is no")),
        ("yes", "always", None),
    ] {
        set("appendonly", appendonly).await;
        set("appendfsync", appendfsync).await;
        let setting = db.make_durable().await.unwrap();
        match reported {
            Some(text) => assert!(setting.as_ref().is_some_and(|setting| setting.starts_with(text)), "{setting:?}"),
            None => assert_eq!(setting, None),
        }
    }
    // A user without the right.
    let user = unique("persistence");
    ask_at::<()>(server.dsn(), &["ACL", "SETUSER", &user, "on", ">p", "~*", "+@all", "-config"]).await;
    let dsn = server.dsn().replacen("redis://", &format!("redis://{}:p@", &*user), 1);
    let setting = pipeline(&RedisSink::connect(&dsn).await.unwrap()).make_durable().await.unwrap();
    assert!(setting.unwrap().contains("cannot be read"));
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again() {
    let server = Server::start(Kind::Redis, &["--busy-reply-threshold", "10", "--appendonly", "yes"]);
    let db = pipeline(&RedisSink::connect(server.dsn()).await.unwrap());
    let dsn = server.dsn().to_owned();
    let script = tokio::spawn(async move {
        let mut conn = looker(&dsn).await;
        redis::cmd("EVAL").arg("while true do end").arg(0).query_async::<redis::Value>(&mut conn).await
    });
    let mut other = looker(server.dsn()).await;
    // It may answer a few commands before the script runs, and reports BUSY after a while.
    let is_busy = async {
        while redis::cmd("PING").query_async::<String>(&mut other).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_busy).await.unwrap();
    let error = db.make_durable().await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, Some("BUSY")), "{error}");
    ask_at::<()>(server.dsn(), &["SCRIPT", "KILL"]).await;
    assert!(script.await.unwrap().is_err());
    assert!(db.make_durable().await.unwrap().unwrap().starts_with("appendfsync is everysec"));
}
