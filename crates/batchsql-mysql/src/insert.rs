//! Owns inserts whose outcome is one for all rows: a single statement, or several in a transaction.
//! Must not know keys or pools.

use batchsql_core::Rows;

use crate::bind::bind_rows;
use crate::classify::{Failed, Stage};
use crate::link::{Link, begin, commit, ready, undo};
use crate::piece::{Piece, cut};
use crate::plan::MySqlPlan;

/// Inserts every row, or none of them.
pub(crate) async fn insert_all(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<(), Failed> {
    let pieces: Vec<Piece> = cut(plan, rows)?.into_iter().flat_map(|piece| piece.split(plan)).collect();
    match &*pieces {
        [whole] => insert(link, plan, whole, rows, Stage::Statement).await.map(drop),
        pieces => {
            begin(link).await?;
            for piece in pieces {
                if let Err(failed) = insert(link, plan, piece, rows, Stage::Open).await {
                    return Err(undo(link, failed).await);
                }
            }
            commit(link).await
        }
    }
}

/// Sends one statement; how many rows the server says were affected. `stage` says whether it is a transaction of
/// its own.
pub(crate) async fn insert(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    piece: &Piece,
    rows: Rows<'_>,
    stage: Stage,
) -> Result<u64, Failed> {
    let rows = rows.slice(piece.rows.clone());
    let statement = plan.insert(rows.len());
    let columns: Vec<usize> = (0..plan.storage.len()).collect();
    let arguments = bind_rows(rows, &columns, &plan.storage, piece.bytes).map_err(Failed::unsent)?;
    ready(link.connection, &statement).await?;
    let query = sqlx::query_with(&statement.sql, arguments).persistent(statement.keep);
    link.enter(stage)?;
    if let Some(session) = link.session {
        session.sends(piece.bytes);
    }
    let result = query.execute(&mut *link.connection).await;
    link.leave(stage, result).map(|result| result.rows_affected())
}
