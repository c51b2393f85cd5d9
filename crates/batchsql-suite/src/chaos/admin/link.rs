//! Owns an administrator's connection to a server with SQL, and its limits.
//! Must not know a database, or when a fault is caused.

use std::future::Future;

use anyhow::{Context, Error, Result};
use async_trait::async_trait;
use sqlx::Connection;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::interface::{CALL, PATIENCE, PAUSE};
use super::{NotLocked, Scene, tables};
use crate::chaos::check::{Found, FoundRow};

/// `host:port` of the server.
pub(super) fn server(dsn: &Url) -> Option<String> {
    Some(format!("{}:{}", dsn.host_str()?, dsn.port()?))
}

/// A connection. A server that is being started is waited for.
pub(super) async fn connect<C: Connection>(dsn: &Url) -> Result<C> {
    let begin = Instant::now();
    loop {
        match called(C::connect(dsn.as_str())).await {
            Ok(link) => return Ok(link),
            Err(error) if begin.elapsed() > PATIENCE => return Err(error.context("cannot reach the server")),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// The result of a call that has a limit.
pub(super) async fn called<T>(call: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    Ok(timeout(CALL, call).await.context("the server did not answer")??)
}

/// What the clients of both databases do in the same words, but with types of their own.
#[async_trait]
pub(super) trait Link: Connection {
    async fn execute(&mut self, statement: &str) -> sqlx::Result<()>;

    /// Whether a lock was not given in time.
    fn is_lock_timeout(error: &sqlx::Error) -> bool;

    /// Key, producer and sequence of each row.
    async fn rows(&mut self, query: &str) -> sqlx::Result<Vec<(i64, i64, i64)>>;
}

/// Runs statements in order.
pub(super) async fn run(link: &mut impl Link, statements: &[String]) -> Result<()> {
    for statement in statements {
        execute(link, statement).await?;
    }
    Ok(())
}

/// Runs the statements of a change. After [`NotLocked`] the next call goes on with the statement that got no lock.
pub(super) async fn change(link: &mut impl Link, statements: &[String], scene: &mut Scene) -> Result<()> {
    while let Some(statement) = statements.get(scene.done) {
        execute(link, statement).await?;
        scene.done += 1;
    }
    scene.done = 0;
    Ok(())
}

async fn execute<L: Link>(link: &mut L, statement: &str) -> Result<()> {
    let executed = called(link.execute(statement)).await;
    let is_locked = |error: &Error| error.downcast_ref().is_some_and(L::is_lock_timeout);
    executed.map_err(|error| match is_locked(&error) {
        true => error.context(statement.to_owned()).context(NotLocked),
        false => error.context(statement.to_owned()),
    })
}

/// Reads every table and the history.
pub(super) async fn read(link: &mut impl Link, scene: &Scene) -> Result<Found> {
    let mut found = Found::default();
    for (table, query) in tables::queries(scene) {
        found.tables.entry(table).or_default().push(rows(link, &query).await?);
    }
    found.history = Some(rows(link, &tables::history(scene)).await?);
    Ok(found)
}

async fn rows(link: &mut impl Link, query: &str) -> Result<Vec<FoundRow>> {
    let rows = called(link.rows(query)).await.with_context(|| query.to_owned())?;
    rows.into_iter().map(|(id, producer, sequence)| tables::found(id, producer, sequence)).collect()
}
