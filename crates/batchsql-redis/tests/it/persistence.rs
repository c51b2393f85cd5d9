//! Settings with which a crash of the server loses rows that it has confirmed.

use batchsql_redis::RedisSink;
use batchsql_testserver::{Kind, Server};

use crate::support::{ask_at, pipeline, unique};

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
