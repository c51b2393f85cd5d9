//! Owns inserts with one outcome for all rows: a single statement, or several in a transaction.
//! Must not know keys or pools.
//!
//! The round trip to the server decides how a row count without a prepared statement is sent. With a round trip of 10
//! ms, 487 rows take 10 ms with their values in the text of one statement, 20 ms when a statement is prepared for
//! them, and 70 ms in pieces that are prepared: START TRANSACTION, 256, 128, 64, 32, 7 rows, COMMIT.

use batchsql_core::Rows;

use crate::bind::bind_rows;
use crate::classify::{Failed, Stage};
use crate::link::{Link, Unusual, begin, commit, execute, ready, undo};
use crate::literals;
use crate::piece::{Piece, cut};
use crate::plan::MySqlPlan;
use crate::statements::Statement;

/// Inserts every row, or none of them.
pub(crate) async fn insert_all(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<(), Failed> {
    let whole = cut(plan, rows)?;
    let is_usual = match link.unusual {
        Unusual::Pieces => true,
        Unusual::Once | Unusual::Text => plan.keeps(rows.len()),
        Unusual::AlwaysText => false,
    };
    if !is_usual && link.unusual != Unusual::Once {
        let bytes = whole.iter().map(|piece| piece.bytes).sum();
        if let Some(sql) = literals::insert(plan, rows, bytes) {
            return alone(link, &sql).await;
        }
    }
    let pieces: Vec<Piece> = match link.unusual {
        Unusual::Pieces => whole.into_iter().flat_map(|piece| piece.split(plan)).collect(),
        Unusual::Once | Unusual::Text | Unusual::AlwaysText => whole,
    };
    let statement = |piece: &Piece| {
        if is_usual { plan.insert(piece.rows.len()) } else { plan.insert_once(piece.rows.len()) }
    };
    match &*pieces {
        [whole] if link.attempt.step().is_none() => {
            send(link, plan, whole, rows, Stage::Statement, statement(whole)).await.map(drop)
        }
        pieces => {
            begin(link).await?;
            for piece in pieces {
                if let Err(failed) = send(link, plan, piece, rows, Stage::Open, statement(piece)).await {
                    return Err(undo(link, failed).await);
                }
            }
            commit(link).await
        }
    }
}

/// A statement that is its own transaction, unless a position moves with it.
async fn alone(link: &mut Link<'_>, sql: &str) -> Result<(), Failed> {
    if link.attempt.step().is_none() {
        return execute(link, sql, Stage::Statement).await;
    }
    begin(link).await?;
    match execute(link, sql, Stage::Open).await {
        Ok(()) => commit(link).await,
        Err(failed) => Err(undo(link, failed).await),
    }
}

/// Sends one statement and returns the number of affected rows. `stage` says whether it is its own transaction.
pub(crate) async fn insert(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    piece: &Piece,
    rows: Rows<'_>,
    stage: Stage,
) -> Result<u64, Failed> {
    let statement = plan.insert(piece.rows.len());
    send(link, plan, piece, rows, stage, statement).await
}

pub(crate) async fn send(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    piece: &Piece,
    rows: Rows<'_>,
    stage: Stage,
    statement: Statement,
) -> Result<u64, Failed> {
    let rows = rows.slice(piece.rows.clone());
    let columns: Vec<usize> = (0..plan.storage.len()).collect();
    let arguments = bind_rows(rows, &columns, &plan.storage, piece.bytes).map_err(Failed::unsent)?;
    ready(link.connection, &statement).await?;
    let query = sqlx::query_with(&statement.sql, arguments).persistent(statement.keep);
    link.enter(stage)?;
    link.sends(piece.bytes);
    let result = query.execute(&mut *link.connection).await;
    link.leave(stage, result).map(|result| result.rows_affected())
}
