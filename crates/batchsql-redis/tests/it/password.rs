//! Passwords that change, and servers that are not available yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use batchsql_core::{ColumnType, Conflict, ErrorClass, Password, Schema, Sink};
use batchsql_redis::{Command, RedisOptions, RedisSink};
use batchsql_testserver::{Kind, Server};

use crate::support::{HOUR, ask_at, config, name, outcomes, row, write};
use batchsql_testkit::{outcomes_of, receipts_of};

fn schema() -> Schema {
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text);
    schema.on_conflict(Conflict::replace(["k"])).build().unwrap()
}

/// Gives `token0`, `token1`, … and counts.
fn tokens(options: RedisOptions) -> (RedisOptions, Arc<AtomicUsize>) {
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&asked);
    let options = options.password_provider(move || {
        let token = Password::new(format!("token{}", count.fetch_add(1, Ordering::SeqCst)));
        async move { Ok(token) }
    });
    (options.command("t", Command::set("k", "v")), asked)
}

#[tokio::test]
async fn a_password_that_is_refused_is_asked_for_again() {
    for (kind, user) in [(Kind::Redis, ""), (Kind::Redis, "app"), (Kind::RedisCluster, "")] {
        let server = Server::start(kind, &[]);
        let set = async |token: &str| {
            let nodes = if kind == Kind::RedisCluster {
                // Each node has its own users.
                let hosts = server.dsn().trim_start_matches("redis://").split('?').next().unwrap();
                hosts.split(',').map(|host| format!("redis://{host}")).collect()
            } else {
                vec![server.dsn().to_owned()]
            };
            for node in nodes {
                let name = if user.is_empty() { "default" } else { user };
                let admin = node.replace("redis://", "redis://admin:hunter2@");
                // With the old user while it exists.
                let words = ["ACL", "SETUSER", name, "on", "resetpass", &format!(">{token}"), "~*", "+@all"];
                let dsn = if user.is_empty() && token != "token0" { &admin } else { &node };
                if token == "token0" {
                    ask_at::<()>(&node, &["ACL", "SETUSER", "admin", "on", ">hunter2", "~*", "&*", "+@all"]).await;
                }
                ask_at::<()>(dsn, &words).await;
            }
        };
        set("token0").await;
        let at = if user.is_empty() { "redis://".to_owned() } else { format!("redis://{user}@") };
        let (options, asked) = tokens(server.dsn().replace("redis://", &at).parse().unwrap());
        let sink = RedisSink::with_options(&options).await.unwrap();
        let rows = || (0..20).map(|n| row(&schema(), [format!("k{n}").into(), "v".into()]));
        assert!(write(&sink, rows()).await.iter().all(|outcome| outcome == "written"), "{kind:?} {user}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{kind:?} {user}");
        // The token has changed; open connections stay, and new ones need it.
        set("token1").await;
        let other = RedisSink::with_options(&options).await.unwrap();
        for sink in [&sink, &other] {
            assert!(write(sink, rows()).await.iter().all(|outcome| outcome == "written"), "{kind:?} {user}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{kind:?} {user}");
    }
}

#[tokio::test]
async fn a_provider_without_the_right_password_says_so_without_it() {
    let server = Server::start(Kind::Redis, &["--requirepass", "hunter2"]);
    let (options, asked) = tokens(server.dsn().parse().unwrap());
    let error = RedisSink::with_options(&options).await.unwrap_err();
    let shown = format!("{error} {error:?} {options:?}");
    assert!(shown.contains("rejected the password of the provider") && !shown.contains("token"), "{shown}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let error = RedisSink::with_options_lazy(&options).unwrap().acquire().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Permission);
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_not_taken_for_a_silent_server() {
    for kind in [Kind::Redis, Kind::RedisCluster] {
        let server = Server::start(kind, &[]);
        let options: RedisOptions = server.dsn().parse().unwrap();
        let options = options
            .password_provider(std::future::pending::<Result<Password, Box<dyn std::error::Error + Send + Sync>>>)
            .connect_timeout(std::time::Duration::from_millis(200))
            .command("t", Command::set("k", "v"));
        let check = |error: String| {
            assert!(error.contains("the password provider gave no password within 200ms"), "{kind:?}: {error}");
        };
        check(RedisSink::with_options(&options).await.unwrap_err().to_string());
        let sink = RedisSink::with_options_lazy(&options).unwrap();
        let outcome = outcomes(&sink, [row(&schema(), ["k".into(), "v".into()])]).await.remove(0);
        let failed = outcome.failure().unwrap();
        assert_eq!(failed.class(), Some(ErrorClass::Transient), "{kind:?}");
        check(failed.error().unwrap().to_string());
    }
}

#[tokio::test]
async fn a_lazy_sink_writes_when_its_server_is_there() {
    let mut server = Server::start(Kind::Redis, &[]);
    let dsn = server.dsn().to_owned();
    server.stop();
    assert!(RedisSink::connect(&dsn).await.is_err());
    assert!(RedisSink::connect_lazy("redis://user:hunter2@host:port").is_err());
    let options = dsn.parse::<RedisOptions>().unwrap().command("t", Command::set("k", "v"));
    let sink = RedisSink::with_options_lazy(&options).unwrap();
    let config = config().retry_for(HOUR).flush_interval(std::time::Duration::from_millis(1));
    let db = batchsql_core::BatchSql::builder(sink).config(config).start().unwrap();
    let receipts = receipts_of(&db, [row(&schema(), ["k".into(), "v".into()])]).await;
    server.start_again();
    db.close(HOUR).await;
    assert_eq!(outcomes_of(receipts).await.iter().map(name).collect::<Vec<_>>(), ["written"]);
}
