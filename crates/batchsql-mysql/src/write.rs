//! Owns the writing of one batch: how it is cut into statements, and what is a transaction.
//! Must not know keys or pools.
//!
//! One statement is a transaction of its own. Several are `START TRANSACTION … COMMIT`, and after an error nothing
//! of them is left. A batch that is given up before its last step, whichever it is, is known not to be written.

use std::ops::Range;

use batchsql_core::{Attempt, ErrorClass, Rows, SinkError, Written};
use batchsql_sql::pieces;
use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Statement as _};

use crate::bind::{PACKET_HEADER, bind_rows, row_bytes, views};
use crate::classify::{Failed, Stage};
use crate::plan::{MySqlPlan, Statement, Way};
use crate::write_ignore::write_ignore;

/// The connection that carries a batch, and the attempt that it is.
pub(crate) struct Link<'a> {
    pub(crate) connection: &'a mut MySqlConnection,
    pub(crate) attempt: &'a Attempt,
}

/// Writes the rows in one transaction. After an error nothing of them is durable, unless its class says that this
/// is unknown.
pub(crate) async fn write_rows(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<Written, Failed> {
    check_values(plan, rows)?;
    match plan.way {
        Way::Direct(_) => {
            insert_all(link, plan, rows).await?;
            Ok(Written::default())
        }
        Way::Ignore(ignore_with) => write_ignore(link, plan, rows, ignore_with).await,
    }
}

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

/// Rows that fit into one statement.
pub(crate) struct Piece {
    pub(crate) rows: Range<usize>,
    bytes: usize,
}

impl Piece {
    /// Cuts the piece into statements that stay prepared.
    fn split(self, plan: &MySqlPlan) -> impl Iterator<Item = Self> {
        let (len, mut next) = (self.rows.len(), self.rows.start);
        plan.split(len).into_iter().map(move |size| {
            let start = next;
            next += size;
            // What is reserved for a part: about its share.
            Self { rows: start..next, bytes: self.bytes / len * size }
        })
    }
}

/// Cuts rows into statements that the server takes.
pub(crate) fn cut(plan: &MySqlPlan, rows: Rows<'_>) -> Result<Vec<Piece>, Failed> {
    let views = views(rows, &plan.storage);
    let bytes: Vec<usize> = (0..rows.len()).map(|row| row_bytes(&views, row)).collect();
    let sum = |rows: &Range<usize>| bytes[rows.clone()].iter().sum();
    let pieces: Vec<Piece> = pieces(bytes.iter().copied(), plan.max_rows, plan.max_bytes)
        .into_iter()
        .map(|rows| Piece { bytes: sum(&rows), rows })
        .collect();
    // A row larger than the preferred size is a piece of its own; what counts for it is the server's limit.
    let limit = plan.max_allowed_packet.saturating_sub(PACKET_HEADER);
    match pieces.iter().find(|piece| piece.bytes > limit) {
        None => Ok(pieces),
        Some(piece) => {
            let text = format!(
                "a row of {} bytes does not fit into the server's max_allowed_packet = {}; raise it, or split the row",
                piece.bytes, plan.max_allowed_packet
            );
            Err(Failed::unsent(SinkError::new(ErrorClass::Size, text)))
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
    let result = query.execute(&mut *link.connection).await;
    link.leave(stage, result).map(|result| result.rows_affected())
}

impl Link<'_> {
    /// What is sent next may become durable, unless the stage is [`Stage::Open`].
    fn enter(&self, stage: Stage) -> Result<(), Failed> {
        if stage == Stage::Open || self.attempt.begin() {
            return Ok(());
        }
        let mut failed = Failed::unsent(SinkError::new(ErrorClass::Transient, "given up before it was sent"));
        failed.usable = false;
        Err(failed)
    }

    /// After an answer that says that nothing became durable, the next step begins as the first one did.
    fn leave<T>(&self, stage: Stage, result: sqlx::Result<T>) -> Result<T, Failed> {
        let result = result.map_err(|error| Failed::of(error, stage));
        if stage != Stage::Open && result.as_ref().is_err_and(|failed| failed.error.class() != ErrorClass::Unknown) {
            self.attempt.defer();
        }
        result
    }
}

/// Prepares a statement that stays prepared, so that a link that is lost on the way there is known to have carried
/// nothing. A statement for one use is prepared and executed in one go.
pub(crate) async fn ready(connection: &mut MySqlConnection, statement: &Statement) -> Result<(), Failed> {
    if statement.keep {
        let prepared = connection.prepare(&statement.sql).await.map_err(|error| Failed::of(error, Stage::Open))?;
        debug_assert_eq!(prepared.sql(), &*statement.sql);
    }
    Ok(())
}

pub(crate) async fn begin(link: &mut Link<'_>) -> Result<(), Failed> {
    run(link, "START TRANSACTION", Stage::Open).await
}

/// With words for what is the usual case: where `completion_type` is CHAIN, a bare COMMIT would open the next
/// transaction, in which the next batch would stay.
pub(crate) async fn commit(link: &mut Link<'_>) -> Result<(), Failed> {
    let committed = run(link, "COMMIT AND NO CHAIN", Stage::Commit).await;
    // What is left of a commit that fails is for nobody to meet.
    committed.map_err(|failed| Failed { usable: false, ..failed })
}

/// Undoes the open transaction. When that fails, the connection is closed, which undoes it too.
pub(crate) async fn undo(link: &mut Link<'_>, mut failed: Failed) -> Failed {
    if failed.usable {
        failed.usable = run(link, "ROLLBACK AND NO CHAIN", Stage::Open).await.is_ok();
    }
    failed
}

/// Runs a statement without parameters.
pub(crate) async fn run(link: &mut Link<'_>, sql: &'static str, stage: Stage) -> Result<(), Failed> {
    link.enter(stage)?;
    let result = link.connection.execute(sql).await;
    link.leave(stage, result).map(drop)
}

/// Refuses values that the server would change without an error, before anything is sent.
fn check_values(plan: &MySqlPlan, rows: Rows<'_>) -> Result<(), Failed> {
    for (index, storage) in plan.storage.iter().enumerate() {
        if storage.guard.first_refused(&rows.column(index), rows.len()).is_some() {
            let column = rows.schema().columns()[index].name();
            let text = format!("a value of column {column:?} {}", storage.guard.reason());
            return Err(Failed::unsent(SinkError::new(ErrorClass::Row, text)));
        }
    }
    Ok(())
}
