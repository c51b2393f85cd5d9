//! Connecting: TLS, and clear errors in time that contain no password.

use std::time::{Duration, Instant};

use batchsql_core::{Attempt, BatchSql, Conflict, OutcomeKind, Sink};
use batchsql_mysql::sqlx::Executor;
use batchsql_mysql::sqlx::mysql::MySqlConnectOptions;
use batchsql_mysql::{MySqlOptions, MySqlSink};
use batchsql_testserver::{Conditions, Kind, NetworkProxy, Server, dsn};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::{Database, row, schema, with_parameters, with_path, with_user, write};

/// A network between the pipeline and the server, and the options of a connection through it.
fn through_network(dsn: &str) -> (NetworkProxy, MySqlOptions) {
    let direct: MySqlConnectOptions = dsn.parse().unwrap();
    let server = (direct.get_host().to_owned(), direct.get_port());
    let proxy = NetworkProxy::start(server, Conditions::default(), 0).unwrap();
    let address = proxy.address();
    let through = direct.host(&address.ip().to_string()).port(address.port());
    (proxy, MySqlOptions::from_connect_options(through))
}

/// Each of them would cost the time limit for a connection, one after the other.
#[tokio::test]
async fn idle_connections_that_the_network_has_lost_cost_one_attempt() {
    let (proxy, options) = through_network(&dsn(Kind::MySql));
    let options = options.connect_timeout(Duration::from_secs(3)).max_connections(4);
    let sink = MySqlSink::with_options(&options).await.unwrap();
    let four = tokio::join!(sink.acquire(), sink.acquire(), sink.acquire(), sink.acquire());
    assert!(four.0.is_ok() && four.1.is_ok() && four.2.is_ok() && four.3.is_ok());
    drop(four);
    // From now on each of them is checked before it is used.
    tokio::time::sleep(Duration::from_millis(700)).await;
    proxy.lose_servers();
    assert!(sink.acquire().await.is_err(), "a lost connection was used");
    sink.acquire().await.unwrap();
}

/// Nobody asks for the session of a table without an order; the pool asks when it opens or checks a connection, and keeps it.
#[tokio::test]
async fn a_link_that_dies_under_a_plain_insert_is_noticed() {
    let db = Database::new("CREATE TABLE t (id BIGINT, note TEXT)").await;
    let (proxy, options) = through_network(&db.dsn);
    let pipeline = BatchSql::builder(MySqlSink::with_options(&options).await.unwrap()).start().unwrap();
    let schema = schema(Conflict::none());
    let receipt = |id| {
        let row = row(&schema, id, "a");
        let pipeline = &pipeline;
        async move {
            let receipt = pipeline.submit_tracked(&row).await.unwrap();
            pipeline.flush().await.unwrap();
            receipt.await
        }
    };
    assert!(receipt(1).await.is_written());
    // The connection was in use just before.
    let mut other = db.connection().await;
    other.execute("LOCK TABLES t WRITE").await.unwrap();
    let (outcome, ()) = tokio::join!(receipt(2), async {
        let waits = "SELECT count(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for%metadata lock'
            AND DB = DATABASE()";
        while db.read(waits).await != ["1"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.lose_servers();
        other.execute("UNLOCK TABLES").await.unwrap();
    });
    let error = outcome.failure().unwrap().error().unwrap().to_string();
    assert!(error.contains("the connection is dead"), "{error}");
    assert_eq!(outcome.kind(), OutcomeKind::Unknown);
    assert!(receipt(3).await.is_written());
}

#[tokio::test]
async fn the_session_of_a_connection_that_comes_back_at_once_is_known() {
    let db = Database::with("CREATE TABLE t (id BIGINT, note TEXT)", "max_connections=2").await;
    let sink = &db.sink;
    let mut locking = db.connection().await;
    let schema = schema(Conflict::none());
    let batch = batchsql_testkit::batch_of([row(&schema, 1, "a")]).await;
    for _ in 0..10 {
        let (one, two) = tokio::join!(sink.acquire(), sink.acquire());
        let (mut one, two) = (one.unwrap(), two.unwrap());
        let known = |conn| sink.known_session(conn).expect("it was asked for when the connection was opened");
        let (of_one, of_two) = (known(&one), known(&two));
        let plan = sink.prepare(&mut one, &schema).await.unwrap();
        locking.execute("LOCK TABLES t WRITE").await.unwrap();
        let attempt = Attempt::new(false);
        // The connection that waits is the one of this name, and not the other.
        let (written, ()) = tokio::join!(sink.write(&mut one, &plan, batch.rows(), &attempt), async {
            let waits = async {
                while sink.is_working(&of_one).await.unwrap() != Some(true) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), waits).await.expect("the write waits for the lock");
            assert_eq!(sink.is_working(&of_two).await.unwrap(), Some(false));
            locking.execute("UNLOCK TABLES").await.unwrap();
        });
        written.unwrap();
    }
}

/// A connection whose session has no name, because the server prepares no statement, writes with the values in the text.
#[tokio::test]
async fn a_server_that_prepares_no_further_statement_is_connected_and_written() {
    let server = Server::start(Kind::MySql, &[]);
    let sql = "CREATE TABLE t (id BIGINT, note TEXT)";
    let db = Database::on(server.dsn(), sql, "").await;
    let schema = schema(Conflict::none());
    let batch = batchsql_testkit::batch_of([row(&schema, 1, "a")]).await;
    // The check of a table needs one.
    let plan = db.sink.prepare(&mut db.sink.acquire().await.unwrap(), &schema).await.unwrap();
    db.connection().await.execute("SET GLOBAL max_prepared_stmt_count = 0").await.unwrap();
    let sink = MySqlSink::connect(&with_parameters(&db.dsn, "values_in_text=always")).await.unwrap();
    let mut conn = sink.acquire().await.unwrap();
    assert!(sink.known_session(&conn).is_none());
    sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap();
    assert_eq!(db.read("SELECT count(*) FROM t").await, ["1"]);
}

/// The error of connecting, within the connect timeout and without the password.
async fn refusal(dsn: &str) -> String {
    let begin = Instant::now();
    let error = MySqlSink::connect(&with_parameters(dsn, "connect_timeout=5")).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}: {error}", begin.elapsed());
    let source = std::error::Error::source(&error).map(ToString::to_string);
    let shown = format!("{error} {error:?} {source:?}");
    assert!(!shown.contains("secret"), "{shown}");
    error.to_string()
}

#[tokio::test]
async fn mistakes_have_a_clear_error_in_time() {
    let check = async |dsn: &str, part: &str| {
        let text = refusal(dsn).await;
        assert!(text.contains(part), "{text:?} does not contain {part:?}");
    };
    let server = dsn(Kind::MySql);
    check(&with_user(&server, "nobody", "secret"), "refused the connection: Access denied for user 'nobody'").await;
    check(&with_user(&server, "nobody", "secret"), "check user and password").await;
    check(&with_path(&server, "no_such_database"), "create the database or name another one").await;
    check(&with_parameters(&server, "collation=nonsense"), "check charset and collation").await;
    // No listener, no answer, a closed connection, another protocol.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    check(&format!("mysql://u:secret@127.0.0.1:{free}/d"), "check that it runs, and check host and port").await;
    check("mysql://u:secret@host.invalid/d", "cannot connect to mysql server host.invalid:3306").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    check(&format!("mysql://u:secret@127.0.0.1:{port}/d"), "did not answer within 5s").await;
    let says = async |words: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let _ = client.write_all(words).await;
            }
        });
        port
    };
    let hangs_up = says(b"").await;
    check(&format!("mysql://u:secret@127.0.0.1:{hangs_up}/d"), "cannot connect to mysql server").await;
    let other = says(b"\x05\x00\x00\x00\x63hello").await;
    check(&format!("mysql://u:secret@127.0.0.1:{other}/d"), "does not speak the mysql protocol").await;
    let http = says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    check(&format!("mysql://u:secret@127.0.0.1:{http}/d"), "cannot connect to mysql server").await;
}

#[tokio::test]
async fn sessions_of_our_own_wait_for_locks_shorter_than_a_write_may_take() {
    let db = Database::new("").await;
    let waits = db.read("SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout").await;
    assert_eq!(waits, ["20|20"]);
}

#[tokio::test]
async fn rows_travel_over_tls_to_the_server_that_the_certificate_names() {
    let server = Server::start(Kind::MySql, &[]);
    let ca = server.ca().display().to_string();
    let db = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)", "").await;
    let port = db.dsn.rsplit_once(':').unwrap().1.split('/').next().unwrap().to_owned();
    let (user, _) = db.dsn.split_once('@').unwrap();
    let at = |host: &str, parameters: &str| format!("{user}@{host}:{port}/{}?{parameters}", db.name);
    let verified = format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}&max_connections=1");
    let sink = MySqlSink::connect(&at("localhost", &verified)).await.unwrap();
    let schema = schema(Conflict::ignore(["id"]));
    let rows = (0..1_000).map(|id| row(&schema, id, "x".repeat(100)));
    assert!(write(&sink, rows).await.iter().all(|name| *name == "written"));
    let cipher: (String, String) = batchsql_mysql::sqlx::query_as("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        .fetch_one(sink.mysql_pool())
        .await
        .unwrap();
    assert!(!cipher.1.is_empty(), "the link is not encrypted");
    // An authority that did not sign the certificate.
    let text = refusal(&at("localhost", "ssl-mode=VERIFY_IDENTITY")).await;
    assert!(text.contains("check ssl-mode and ssl-ca"), "{text}");
}

#[tokio::test]
async fn debug_and_display_show_no_password() {
    let db = Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY)").await;
    // A password that occurs nowhere else.
    let user = db.user("hunter2-hunter3", "").await;
    db.run(&format!("GRANT ALL ON {}.* TO '{user}'@'%'", db.name)).await;
    let options: MySqlOptions = with_user(&db.dsn, &user, "hunter2-hunter3").parse().unwrap();
    let sink = MySqlSink::with_options(&options).await.unwrap();
    let conn = Sink::acquire(&sink).await.unwrap();
    // The server no longer accepts the user.
    db.run(&format!("ALTER USER '{user}'@'%' IDENTIFIED BY 'another'")).await;
    let refused = MySqlSink::with_options(&options).await.unwrap_err();
    let shown = format!("{options:?} {sink:?} {conn:?} {refused} {refused:?}");
    assert!(shown.contains(&user) && !shown.contains("hunter"), "{shown}");
}
