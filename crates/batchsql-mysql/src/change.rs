//! Owns the statements that change rows whose keys exist: updates and deletes.
//! Must not know which keys exist, or transactions.

use batchsql_core::{Action, Rows};
use batchsql_sql::mysql::{Join, delete, update};

use crate::bind::{PACKET_HEADER, bind_more, bind_rows};
use crate::classify::{Failed, Stage};
use crate::insert::send;
use crate::keys::KEYS_PER_STATEMENT;
use crate::link::{Link, Unusual, ready};
use crate::piece::{Piece, cut};
use crate::plan::MySqlPlan;
use crate::statements::Statement;

/// Bytes of an integer in the packet, with its type and its NULL bit.
const KEY_BYTES: usize = 11;

/// Changes rows of different keys, as their rule says. Returns the number of stored rows that were found: sqlx sets the flag
/// CLIENT_FOUND_ROWS.
pub(crate) async fn change_existing(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    rows: Rows<'_>,
    one_by_one: bool,
) -> Result<u64, Failed> {
    let schema = plan.schema();
    let all: Vec<usize> = (0..schema.columns().len()).collect();
    // An insert that finds a duplicate in another unique index would update the row that is there.
    let by_update = schema.action() == Action::UpdateOnly || plan.table().unique_indexes.len() > 1;
    let mut found = 0;
    match schema.action() {
        Action::Delete => {
            for start in (0..rows.len()).step_by(KEYS_PER_STATEMENT) {
                let part = rows.slice(start..rows.len().min(start + KEYS_PER_STATEMENT));
                let statement = plan.locks.writes.get(part.len(), || delete(schema, part.len(), &plan.locks.values()));
                found += execute(link, plan, part, schema.key_columns(), statement).await?;
            }
        }
        // Texts are compared as their column is only beside the column itself.
        _ if by_update && (one_by_one || plan.locks.has_text_key) => {
            let columns: Vec<usize> = all.iter().chain(schema.key_columns()).copied().collect();
            for number in 0..rows.len() {
                let values = plan.locks.values();
                let statement = plan.locks.single_writes.get(1, || update(schema, &values, Join::One));
                found += execute(link, plan, rows.slice(number..number + 1), &columns, statement).await?;
            }
        }
        _ if by_update => {
            for piece in cut(plan, rows)? {
                found += update_piece(link, plan, rows, piece, &all).await?;
            }
        }
        _ => {
            for piece in cut(plan, rows)? {
                let statement = plan.insert(piece.rows.len());
                found += send(link, plan, &piece, rows, Stage::Open, statement).await?;
            }
        }
    }
    Ok(found)
}

/// Updates rows that fit into one statement.
async fn update_piece(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    rows: Rows<'_>,
    piece: Piece,
    all: &[usize],
) -> Result<u64, Failed> {
    let (schema, values) = (plan.schema(), plan.locks.values());
    let rows = rows.slice(piece.rows);
    // The keys are sent once more.
    let keys = rows.len() * schema.key_columns().len() * KEY_BYTES;
    let fits = |bytes: usize| bytes + PACKET_HEADER <= plan.max_allowed_packet;
    // Far away one statement of all rows takes less time than several that the server executes faster.
    let is_near = link.unusual == Unusual::Pieces;
    let listed = plan.locks.listed.as_ref().filter(|listed| is_near || rows.len() <= listed.max_rows);
    let listed = listed.filter(|_| fits(piece.bytes + keys));
    let size = listed.map_or(rows.len(), |listed| listed.max_rows);
    let mut found = 0;
    for start in (0..rows.len()).step_by(size) {
        let part = rows.slice(start..rows.len().min(start + size));
        let statement = listed.and_then(|listed| listed.statement(schema, part, &values));
        found += match statement.filter(|statement| fits(statement.sql.len())) {
            Some(statement) => execute_with(link, plan, part, (all, schema.key_columns()), statement).await?,
            None => {
                let text = || update(schema, &values, Join::Rows(part.len()));
                execute(link, plan, part, all, plan.locks.writes.get(part.len(), text)).await?
            }
        };
    }
    Ok(found)
}

async fn execute(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    rows: Rows<'_>,
    columns: &[usize],
    statement: Statement,
) -> Result<u64, Failed> {
    execute_with(link, plan, rows, (columns, &[]), statement).await
}

/// The columns `more` of all rows follow the columns of the last row.
async fn execute_with(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    rows: Rows<'_>,
    (columns, more): (&[usize], &[usize]),
    statement: Statement,
) -> Result<u64, Failed> {
    let mut arguments = bind_rows(rows, columns, &plan.storage, 0).map_err(Failed::unsent)?;
    bind_more(&mut arguments, rows, more, &plan.storage).map_err(Failed::unsent)?;
    ready(link.connection, &statement).await?;
    let query = sqlx::query_with(&statement.sql, arguments).persistent(statement.keep);
    let done = query.execute(&mut *link.connection).await;
    done.map(|done| done.rows_affected()).map_err(|error| Failed::sent(error, Stage::Open, link.table))
}
