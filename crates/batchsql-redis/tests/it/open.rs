//! The errors for servers that cannot be used, within the connect timeout and without the password.

use std::time::{Duration, Instant};

use batchsql_core::{ColumnType, Schema};
use batchsql_redis::{Command, Key, RedisOptions, RedisSink};
use batchsql_testserver::{Kind, Server, dsn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{ask, ask_at, row, sink_at, unique, write};

async fn refused(dsn: &str, part: &str) {
    let begin = Instant::now();
    let patience = Duration::from_secs(5);
    let error = match dsn.parse::<RedisOptions>() {
        Ok(options) => RedisSink::with_options(&options.connect_timeout(patience)).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(begin.elapsed() < patience * 12, "{dsn}: {:?}", begin.elapsed());
    let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
    assert!(shown.contains(part), "{dsn}: {error} does not contain {part:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// A server that handles every connection with one function.
async fn listen<F: Future<Output = ()> + Send>(act: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            act(stream).await;
        }
    });
    place
}

#[tokio::test]
async fn servers_that_are_not_there() {
    refused("redis://app:hunter2@127.0.0.1:1", "no server listens at 127.0.0.1:1").await;
    refused("redis://app:hunter2@no-such-host.invalid", "no-such-host.invalid:6379").await;
    refused("unix:///no/such/socket?pass=hunter2", "no server listens at /no/such/socket").await;
    refused("redis://app:hunter2@127.0.0.1:1,127.0.0.1:2?cluster=true", "127.0.0.1:2").await;
}

/// A time that no clock has is one without an end.
#[tokio::test]
async fn the_longest_connect_timeout_is_no_overflow() {
    let options: RedisOptions = "redis://127.0.0.1:1".parse().unwrap();
    let error = RedisSink::with_options(&options.connect_timeout(Duration::MAX)).await.unwrap_err();
    assert!(error.to_string().contains("no server listens"), "{error}");
}

#[tokio::test]
async fn servers_that_do_not_answer_as_redis() {
    let closing = listen(|stream| async move { drop(stream) }).await;
    refused(&format!("redis://:hunter2@{closing}"), "closed the connection in the handshake").await;
    let silent = listen(|mut stream| async move {
        tokio::spawn(async move {
            let mut sink = Vec::new();
            let _ = stream.read_to_end(&mut sink).await;
        });
    });
    refused(&format!("redis://:hunter2@{}", silent.await), "does not answer within the connect timeout").await;
    let other = listen(|mut stream| async move {
        tokio::spawn(async move {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            // It keeps the connection open, so that the error does not come from its end.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
    });
    refused(&format!("redis://:hunter2@{}", other.await), "does not answer like redis").await;
}

#[tokio::test]
async fn silent_seeds_of_a_cluster_cost_one_timeout_together_and_none_when_another_answers() {
    let silent = async || {
        listen(|mut stream| async move {
            tokio::spawn(async move { drop(stream.read_to_end(&mut Vec::new()).await) });
        })
        .await
    };
    const SHORT: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(60);
    let places = [silent().await, silent().await, silent().await, silent().await];
    let connect = async |places: &str, timeout: Duration| {
        let options: RedisOptions = format!("redis://{places}?cluster=true").parse().unwrap();
        let begin = Instant::now();
        let result = RedisSink::with_options(&options.connect_timeout(timeout)).await;
        (result.map_err(|error| error.to_string()), begin.elapsed())
    };
    let (result, took) = connect(&places.join(","), SHORT).await;
    let error = result.unwrap_err();
    assert!(places.iter().all(|place| error.contains(place.as_str())), "{error}");
    // One after the other they would cost four of them.
    assert!(took < SHORT * 3, "{took:?}");

    let server = Server::start(Kind::RedisCluster, &[]);
    let last = server.dsn().trim_start_matches("redis://").split('?').next().unwrap();
    let (result, took) = connect(&format!("{},{last}", places.join(",")), LONG).await;
    assert!(result.is_ok() && took < LONG, "{took:?} {result:?}");
}

#[tokio::test]
async fn a_user_needs_no_other_rights_than_to_the_commands_of_its_tables() {
    let t = unique("least");
    ask::<()>(&["ACL", "SETUSER", &t, "on", ">pw", &format!("~{t}:*"), "-@all", "+set", "+incrby"]).await;
    let schema =
        Schema::builder(t.as_str()).column("k", ColumnType::Text).column("v", ColumnType::I64).build().unwrap();
    for protocol in [2, 3] {
        let dsn = format!("{}?protocol={protocol}", dsn(Kind::Redis).replace("redis://", &format!("redis://{t}:pw@")));
        for command in [Command::set("k", "v").into(), Command::raw("INCRBY").into()] {
            let command: Command = command;
            let sink = sink_at(&dsn, &t, command).await;
            for _ in 0..2 {
                let rows = [row(&schema, [format!("{t}:k").into(), 1_i64.into()])];
                assert_eq!(write(&sink, rows).await, ["written"]);
            }
        }
    }
    // Not even PING, which is the first command to a server.
    assert_eq!(ask::<i64>(&["GET", &format!("{t}:k")]).await, 3);
}

#[tokio::test]
async fn a_server_that_does_not_describe_its_commands_is_written_all_the_same() {
    let server = Server::start(Kind::Redis, &["--rename-command", "COMMAND", "HIDDEN"]);
    let sink = sink_at(server.dsn(), "t", Command::raw("SADD")).await;
    let schema = Schema::builder("t").column("k", ColumnType::Text);
    let schema = schema.column("v", ColumnType::Text).build().unwrap();
    assert_eq!(write(&sink, [row(&schema, ["k".into(), "v".into()])]).await, ["written"]);
}

#[tokio::test]
async fn users_and_databases_that_are_not_there() {
    let dsn = dsn(Kind::Redis);
    let place = dsn.trim_start_matches("redis://");
    refused(&format!("redis://nobody:hunter2@{place}"), "does not know this user and password").await;
    refused(&format!("redis://{place}/9999"), "no such database").await;
    refused(&format!("redis://{place}?cluster=true"), "remove cluster=true").await;
    let user = unique("weak");
    ask::<()>(&["ACL", "SETUSER", &user, "on", ">hunter2", "~*", "-@all"]).await;
    refused(&format!("redis://{user}:hunter2@{place}/1"), "no right to SELECT it").await;
}

#[tokio::test]
async fn passwords() {
    let server = Server::start(Kind::Redis, &[]);
    ask_at::<()>(server.dsn(), &["CONFIG", "SET", "requirepass", "p@ss/w:rd%"]).await;
    let place = server.dsn().trim_start_matches("redis://").to_owned();
    refused(&format!("redis://{place}"), "asks for a password").await;
    refused(&format!("redis://:hunter2@{place}"), "does not know this user and password").await;
    RedisSink::connect(&format!("redis://:p%40ss%2Fw%3Ard%25@{place}")).await.unwrap();
    RedisSink::connect(&format!("redis://default:p%40ss%2Fw%3Ard%25@{place}?protocol=2")).await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn sockets_and_databases_are_found() {
    let dir = tempfile::tempdir().unwrap();
    // The server may run as another user.
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let socket = dir.path().join("redis.sock");
    let arguments = ["--unixsocket", socket.to_str().unwrap(), "--unixsocketperm", "777"];
    let _server = Server::start(Kind::Redis, &arguments);
    let dsn = format!("unix://{}?db=3", socket.display());
    let schema = Schema::builder("t").column("k", ColumnType::Text).build().unwrap();
    let sink = sink_at(&dsn, "t", Command::sadd(Key::constant("s"), "k")).await;
    assert_eq!(write(&sink, [row(&schema, ["a".into()])]).await, ["written"]);
    assert_eq!(ask_at::<i64>(&format!("redis+unix://{}?db=3", socket.display()), &["SCARD", "s"]).await, 1);
}

#[tokio::test]
async fn a_user_is_not_forgotten_for_want_of_a_password() {
    let server = Server::start(Kind::Redis, &[]);
    ask_at::<()>(server.dsn(), &["ACL", "SETUSER", "open", "on", "nopass", "~*", "+@all", "-set"]).await;
    let with = |user: &str| server.dsn().replace("redis://", &format!("redis://{user}@"));
    refused(&with("open"), "user without a password").await;
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap();
    let sink = sink_at(&with("open:"), "t", Command::set("k", "v")).await;
    // It is that user, and not the default one.
    assert_eq!(write(&sink, [row(&schema, ["k".into(), "v".into()])]).await, ["rejected NOPERM"]);
}
