//! A change that waits for a lock gives up soon, and goes on where it was when it is tried again.

use std::time::Duration;

use batchsql_testserver::{Kind, Server};
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tokio::time::Instant;

use super::{Admin, MySql, NotLocked, Postgres, Scene};
use crate::chaos::fault::Fault;
use crate::chaos::job::Names;

/// `locker` holds a lock on the keyed table, as a step does whose writer is stopped.
async fn check<L>(admin: &dyn Admin, lock: impl AsyncFn(String) -> L) {
    let mut scene = Scene::new(Names::new("locked"));
    admin.create(&scene).await.unwrap();
    for fault in [Fault::ColumnAdded, Fault::TableRecreated, Fault::TableLocked] {
        let keyed = scene.names.keyed.clone();
        let locker = lock(format!("INSERT INTO {keyed} VALUES (1, 1, 1, 1, 'x')")).await;
        let begin = Instant::now();
        let refused = admin.begin(fault, &mut scene).await.expect_err("a lock is held");
        assert!(refused.is::<NotLocked>(), "{fault:?}: {refused:#}");
        // Less than what any other statement may take.
        assert!(begin.elapsed() < super::interface::CALL, "{:?}", begin.elapsed());
        drop(locker);
        // The end of a connection releases its locks when the server has seen it.
        let held = loop {
            match admin.begin(fault, &mut scene).await {
                Err(error) if error.is::<NotLocked>() && begin.elapsed() < Duration::from_secs(60) => {}
                begun => break begun.unwrap(),
            }
        };
        admin.end(fault, &mut scene, held).await.unwrap();
    }
    admin.read(&scene).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_postgres_does_not_wait_for_locks() {
    let server = Server::start(Kind::Postgres, &[]);
    check(&Postgres::new(server.dsn()).unwrap(), async |insert| {
        let mut locker = PgConnection::connect(server.dsn()).await.unwrap();
        locker.execute(&*format!("BEGIN; {insert}")).await.unwrap();
        locker
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_mysql_does_not_wait_for_locks() {
    let server = Server::start(Kind::MySql, &[]);
    // The table of positions, on which the writer gets rights.
    let mut link = MySqlConnection::connect(server.dsn()).await.unwrap();
    link.execute("CREATE TABLE IF NOT EXISTS batchsql_positions (id INT)").await.unwrap();
    check(&MySql::new(server.dsn()).unwrap(), async |insert| {
        let mut locker = MySqlConnection::connect(server.dsn()).await.unwrap();
        locker.execute("START TRANSACTION").await.unwrap();
        locker.execute(&*insert).await.unwrap();
        locker
    })
    .await;
}
