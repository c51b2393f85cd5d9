//! Servers that stop, crash, refuse connections and change their role while rows are submitted.

use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, PipelineConfig};
use batchsql_postgres::{PostgresOptions, PostgresSink};
use batchsql_testserver::{Kind, Server, unique};

use crate::support::{HOUR, at_end, execute, fresh, prepared_dsn, read, row, schema};

fn config() -> PipelineConfig {
    PipelineConfig::default().flush_size(20).flush_interval(Duration::from_millis(2))
}

/// Submits rows until it is stopped; returns how many.
fn feed(db: &BatchSql, conflict: Conflict) -> (tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<i64>) {
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let (db, schema) = (db.clone(), schema(conflict));
    let task = tokio::spawn(async move {
        let mut id = 0;
        while stopped.try_recv().is_err() {
            db.submit(&row(&schema, id, "a")).await.unwrap();
            id += 1;
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        id
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_a_restart_and_a_crash_of_the_server() {
    let mut server = Server::start(Kind::Postgres, &[]);
    let dsn = prepared_dsn(server.dsn(), "CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    let options: PostgresOptions = dsn.parse().unwrap();
    let sink = PostgresSink::with_options(&options.max_connections(4).connect_timeout(Duration::from_secs(1))).await;
    let sink = sink.unwrap();
    let db = BatchSql::builder(sink.clone()).config(config()).start().unwrap();
    let (stop, fed) = feed(&db, Conflict::ignore(["id"]));
    for crash in [false, true] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if crash {
            server.kill()
        } else {
            server.stop()
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        // It accepts connections only after a while (57P03).
        server.launch();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.send(()).unwrap();
    let rows = fed.await.unwrap();
    let report = db.close(HOUR).await;
    let balance = report.balance;
    assert_eq!((balance.failed(), balance.written() + balance.ignored()), (0, rows as u64), "{balance}");
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, [rows.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_wait_while_the_server_has_too_many_connections() {
    let server = Server::start(Kind::Postgres, &["-c", "max_connections=6", "-c", "superuser_reserved_connections=0"]);
    let dsn = prepared_dsn(server.dsn(), "CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    let options: PostgresOptions = dsn.parse().unwrap();
    let options = options.connect_timeout(Duration::from_millis(300)).max_connections(4);
    let sink = PostgresSink::with_options(&options).await.unwrap();
    // Another client has all connections.
    let others = PostgresSink::connect(&dsn).await.unwrap();
    let mut taken = Vec::new();
    while let Ok(Ok(conn)) = tokio::time::timeout(Duration::from_secs(1), others.pg_pool().acquire()).await {
        taken.push(conn);
    }
    assert!(!taken.is_empty());
    let error = PostgresSink::with_options(&options).await.unwrap_err().to_string();
    assert!(error.contains("too many clients") && error.contains("code 53300"), "{error}");
    let error = batchsql_core::Sink::acquire(&sink).await.unwrap_err();
    assert_eq!(error.class(), batchsql_core::ErrorClass::Transient, "{error}");
    let db = BatchSql::builder(sink.clone()).config(config()).start().unwrap();
    let receipt = db.submit_tracked(&row(&schema(Conflict::none()), 1, "a")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(db.balance().in_flight(), 1);
    drop(taken);
    others.pg_pool().close().await;
    assert!(receipt.await.is_written());
}

#[tokio::test]
async fn rows_wait_for_a_failover_and_find_the_new_primary() {
    let name = unique("failover");
    let _database = at_end([format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")]);
    let admin = fresh("").await;
    execute(admin.pg_pool(), &format!("CREATE DATABASE {name}")).await;
    let options = (*admin.pg_pool().connect_options()).clone().database(&name).options([("search_path", "public")]);
    let options = PostgresOptions::from_connect_options(options).max_connections(1);
    let sink = PostgresSink::with_options(&options).await.unwrap();
    execute(sink.pg_pool(), "CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    // As on a primary that has become a standby: its connections stay read-only, new ones are not.
    execute(sink.pg_pool(), "SET default_transaction_read_only = on").await;
    let db = BatchSql::builder(sink.clone()).config(config()).start().unwrap();
    execute(admin.pg_pool(), &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let receipt = db.submit_tracked(&row(&schema(Conflict::none()), 1, "a")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((db.balance().in_flight(), db.balance().written()), (1, 0));
    execute(admin.pg_pool(), &format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    assert!(receipt.await.is_written());
    db.close(HOUR).await;
}
