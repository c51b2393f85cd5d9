//! Connecting: errors are reported in time and without the password; TLS is verified; the user's own pool.

use std::time::{Duration, Instant};

use batchsql_core::{Attempt, BatchSql, Conflict, OutcomeKind, Sink};
use batchsql_postgres::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use batchsql_postgres::sqlx::{self, Executor, PgPool};
use batchsql_postgres::{PostgresOptions, PostgresSink};
use batchsql_testserver::{Conditions, Kind, NetworkProxy, Server, dsn, unique};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{
    at_end, execute, fresh, fresh_dsn, prepared_dsn, read, row, schema, user_until_end, with_parameter, write,
};

/// A network between the pipeline and the server, and the options of a connection through it.
fn through_network(dsn: &str) -> (NetworkProxy, PostgresOptions) {
    let direct: PgConnectOptions = dsn.parse().unwrap();
    let server = (direct.get_host().to_owned(), direct.get_port());
    let proxy = NetworkProxy::start(server, Conditions::default(), 0).unwrap();
    let address = proxy.address();
    let through = direct.host(&address.ip().to_string()).port(address.port());
    (proxy, PostgresOptions::from_connect_options(through))
}

/// Each of them would cost the time limit for a connection, one after the other.
#[tokio::test]
async fn idle_connections_that_the_network_has_lost_cost_one_attempt() {
    let (proxy, options) = through_network(&dsn(Kind::Postgres));
    let options = options.connect_timeout(Duration::from_secs(3)).max_connections(4);
    let sink = PostgresSink::with_options(&options).await.unwrap();
    let four = tokio::join!(sink.acquire(), sink.acquire(), sink.acquire(), sink.acquire());
    assert!(four.0.is_ok() && four.1.is_ok() && four.2.is_ok() && four.3.is_ok(), "{four:?}");
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
    let dsn = fresh_dsn("CREATE TABLE t (id bigint, note text)").await;
    let (proxy, options) = through_network(&dsn);
    let pipeline = BatchSql::builder(PostgresSink::with_options(&options).await.unwrap()).start().unwrap();
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
    let other = PostgresSink::connect(&dsn).await.unwrap();
    let mut locking = other.pg_pool().begin().await.unwrap();
    locking.execute("LOCK TABLE t IN SHARE MODE").await.unwrap();
    let (outcome, ()) = tokio::join!(receipt(2), async {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass";
        while read(&other, waits).await != ["1"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.lose_servers();
        locking.commit().await.unwrap();
    });
    let error = outcome.failure().unwrap().error().unwrap().to_string();
    assert!(error.contains("the connection is dead"), "{error}");
    assert_eq!(outcome.kind(), OutcomeKind::Unknown);
    assert!(receipt(3).await.is_written());
}

#[tokio::test]
async fn the_session_of_a_connection_that_comes_back_at_once_is_known() {
    let dsn = fresh_dsn("CREATE TABLE t (id bigint, note text)").await;
    let sink = PostgresSink::connect(&with_parameter(&dsn, "max_connections=2")).await.unwrap();
    let other = PostgresSink::connect(&dsn).await.unwrap();
    let schema = schema(Conflict::none());
    let batch = batchsql_testkit::batch_of([row(&schema, 1, "a")]).await;
    for _ in 0..10 {
        let (one, two) = tokio::join!(sink.acquire(), sink.acquire());
        let (mut one, two) = (one.unwrap(), two.unwrap());
        let known = |conn| sink.known_session(conn).expect("it was asked for when the connection was opened");
        let (of_one, of_two) = (known(&one), known(&two));
        let plan = sink.prepare(&mut one, &schema).await.unwrap();
        let mut locking = other.pg_pool().begin().await.unwrap();
        locking.execute("LOCK TABLE t IN SHARE MODE").await.unwrap();
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
            locking.rollback().await.unwrap();
        });
        written.unwrap();
    }
}

/// The error of connecting, within its timeout.
async fn refused(options: PostgresOptions) -> String {
    let begin = Instant::now();
    let error = PostgresSink::with_options(&options.connect_timeout(Duration::from_secs(5))).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    assert!(!text.contains("secret-password"), "{text}");
    text
}

/// A server that handles each connection with one function.
async fn listen<F: Future<Output = ()> + Send + 'static>(answer: fn(tokio::net::TcpStream) -> F) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((link, _)) = listener.accept().await {
            tokio::spawn(answer(link));
        }
    });
    port
}

#[tokio::test]
async fn mistakes_are_told_in_time_and_without_the_password() {
    let server = fresh("").await;
    let good = (*server.pg_pool().connect_options()).clone().password("secret-password");
    let check = async |options, part: &str| {
        let text = refused(PostgresOptions::from_connect_options(options)).await;
        assert!(text.contains(part), "{text:?} does not contain {part:?}");
    };
    // A port without a listener: it was just free.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    check(good.clone().host("127.0.0.1").port(free), "the connection was refused").await;
    check(good.clone().host("host.invalid"), "check host, port and network").await;
    let silent = listen(|link| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(link);
    });
    check(good.clone().host("127.0.0.1").port(silent.await), "does not answer within connect_timeout = 5s").await;
    let closes = listen(|link| async move { drop(link) });
    check(good.clone().host("127.0.0.1").port(closes.await), "closed the connection while connecting").await;
    let garbage = listen(|mut link| async move {
        let _ = link.read(&mut [0; 64]).await;
        let _ = link.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    check(good.clone().host("127.0.0.1").port(garbage.await), "does not speak the protocol of postgresql").await;

    let user = unique("user");
    let _user = user_until_end(&user);
    let _database = at_end([format!("DROP DATABASE IF EXISTS {user} WITH (FORCE)")]);
    execute(server.pg_pool(), &format!("CREATE USER {user} PASSWORD 'right'")).await;
    execute(server.pg_pool(), &format!("CREATE DATABASE {user}")).await;
    check(good.clone().username(&user), "check user, password and pg_hba.conf (code 28P01)").await;
    let known = good.clone().username(&user).password("right");
    check(known.clone().database("no_such_database"), "check the database name, or create it (code 3D000)").await;
    execute(server.pg_pool(), &format!("REVOKE CONNECT ON DATABASE {user} FROM PUBLIC")).await;
    check(known.database(&user), "grant the user the right to connect (code 42501)").await;

    let wrong_scheme = dsn(Kind::Postgres).replacen("postgres", "mysql", 1);
    let error = PostgresSink::connect(&wrong_scheme).await.unwrap_err().to_string();
    assert!(error.contains("scheme \"mysql\" is not for postgresql"), "{error}");
}

#[tokio::test]
async fn a_pool_that_finds_no_server_says_so_within_its_timeout() {
    let sink = fresh("").await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let options = (*sink.pg_pool().connect_options()).clone().host("127.0.0.1").port(free);
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(200));
    let lost = PostgresSink::new(pool.connect_lazy_with(options));
    let begin = Instant::now();
    let error = batchsql_core::Sink::acquire(&lost).await.unwrap_err();
    assert_eq!(error.class(), batchsql_core::ErrorClass::Transient, "{error}");
    // The pool of sqlx itself would wait for 30 s.
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_sink_shows_no_password_and_hears_no_notices() {
    let sink = fresh("").await;
    let shown = format!("{:?} {:?}", *sink, batchsql_core::Sink::acquire(&*sink).await.unwrap());
    let password = dsn(Kind::Postgres).split(['/', ':', '@']).nth(4).unwrap().to_owned();
    assert!(!shown.contains(&password) && shown.contains("Auto"), "{shown}");
    // The notice of a trigger about a row would appear in the log of the client.
    assert_eq!(read(&sink, "SHOW client_min_messages").await, ["error"]);
}

#[tokio::test]
async fn a_pool_of_the_user_is_shared() {
    let sink = fresh("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    let pool = PgPool::connect_with((*sink.pg_pool().connect_options()).clone()).await.unwrap();
    let sink = PostgresSink::new(pool.clone());
    let schema = schema(Conflict::ignore(["id"]));
    assert_eq!(write(&sink, [row(&schema, 1, "a"), row(&schema, 1, "b")]).await, ["written", "ignored"]);
    assert_eq!(batchsql_core::Sink::max_concurrency(&sink), Some(10));
    let state = batchsql_core::Sink::pool(&sink).unwrap();
    assert_eq!(state.max, 10);
    // The pool is still the user's.
    execute(&pool, "DELETE FROM t").await;
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["0"]);
}

#[tokio::test]
async fn notices_are_kept_back_inside_transactions_of_a_pool_of_the_user() {
    let dsn = fresh_dsn(
        "CREATE TABLE t (id bigint, note text);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN new.note := current_setting(''client_min_messages''); RETURN new; END';
         CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    )
    .await;
    let sink = PostgresSink::new(PgPool::connect(&dsn).await.unwrap());
    // A table with such a trigger is written in a transaction.
    assert_eq!(write(&sink, [row(&schema(Conflict::none()), 1, "a")]).await, ["written"]);
    assert_eq!(read(&sink, "SELECT note, current_setting('client_min_messages') FROM t").await, ["error|notice"]);
}

#[tokio::test]
async fn a_pool_without_a_statement_cache_leaves_no_statements_on_the_server() {
    let sink = fresh("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    let options = (*sink.pg_pool().connect_options()).clone().statement_cache_capacity(0);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    for conflict in [Conflict::none(), Conflict::ignore(["id"]), Conflict::replace(["id"])] {
        let sink = PostgresSink::new(pool.clone());
        let schema = schema(conflict);
        for id in 0..10 {
            write(&sink, [row(&schema, id, "a")]).await;
        }
    }
    // One per sink, from the check of the cache.
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_prepared_statements")
        .persistent(false)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 3);
}

#[tokio::test]
async fn a_pool_that_discards_statements_costs_connections_and_no_row() {
    let sink = fresh("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    let options = (*sink.pg_pool().connect_options()).clone();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .after_release(|conn, _| Box::pin(async move { conn.execute("DISCARD ALL").await.map(|_| true) }));
    let sink = PostgresSink::new(pool.connect_with(options).await.unwrap());
    let schema = schema(Conflict::replace(["id"]));
    let db = batchsql_core::BatchSql::builder(sink.clone()).start().unwrap();
    for id in 0..4 {
        let receipt = db.submit_tracked(&row(&schema, id, "a")).await.unwrap();
        db.flush().await.unwrap();
        let outcome = receipt.await;
        assert!(outcome.is_written(), "{outcome:?}");
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn rows_go_over_a_verified_link() {
    let server = Server::start(Kind::Postgres, &[]);
    let dsn = prepared_dsn(server.dsn(), "CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    let ca = server.ca().display();
    let verified = with_parameter(&dsn, &format!("sslmode=verify-full&sslrootcert={ca}"));
    let sink = PostgresSink::connect(&verified).await.unwrap();
    let schema = schema(Conflict::replace(["id"]));
    assert_eq!(write(&sink, (0..100).map(|id| row(&schema, id, "a"))).await, ["written"; 100]);
    assert_eq!(read(&sink, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await, ["t"]);
    // As in libpq, `require` verifies if root certificates are given.
    let required = with_parameter(&dsn, &format!("sslmode=require&sslrootcert={ca}"));
    assert_eq!(write(&PostgresSink::connect(&required).await.unwrap(), [row(&schema, 1, "b")]).await, ["written"]);
    let other_ca = Server::start(Kind::Postgres, &[]);
    let wrong = with_parameter(&dsn, &format!("sslmode=require&sslrootcert={}", other_ca.ca().display()));
    let error = PostgresSink::connect(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("TLS failed"), "{error}");
    PostgresSink::connect(&with_parameter(&dsn, "sslmode=require")).await.unwrap();
    // An authority that did not sign it, and a name that is not in it.
    let error = PostgresSink::connect(&with_parameter(&dsn, "sslmode=verify-full")).await.unwrap_err().to_string();
    assert!(error.contains("TLS failed") && error.contains("check sslmode, sslrootcert"), "{error}");
    // Another address of this machine, which is not in the certificate.
    #[cfg(target_os = "linux")]
    {
        let options = (*sink.pg_pool().connect_options()).clone();
        let port = forward("127.0.0.2:0", format!("{}:{}", options.get_host(), options.get_port())).await;
        let options = PostgresOptions::from_connect_options(options.host("127.0.0.2").port(port));
        let error = PostgresSink::with_options(&options).await.unwrap_err().to_string();
        assert!(error.contains("TLS failed") && error.contains("name of the host"), "{error}");
    }
}

/// Forwards connections from another address to the server.
#[cfg(all(feature = "tls", target_os = "linux"))]
async fn forward(from: &str, server: String) -> u16 {
    let listener = TcpListener::bind(from).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut link, _)) = listener.accept().await {
            let mut server = tokio::net::TcpStream::connect(&*server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut link, &mut server).await });
        }
    });
    port
}
