//! Owns `Conflict::Ignore`: rows whose key is there are left out and reported as ignored.
//! Must not know pools or plans of other ways.
//!
//! A no-op `ON DUPLICATE KEY UPDATE` does not show it: with the flag CLIENT_FOUND_ROWS, which `sqlx` sets, an old row
//! counts as much as a new one. So a batch goes this way, and most batches only the first step of it:
//!
//! 1. A plain insert in one statement. When it succeeds, every row was new.
//! 2. After error 1062, which undoes the statement, and where the last batch had duplicates: in one transaction, ask for
//!    the keys that are there, and insert the other rows.
//! 3. When that meets 1062 too (the server sees more keys as equal than we do, another unique index, another
//!    writer): in the same transaction, halves of halves, down to single rows.
//!
//! The keys are read inside the transaction, because a proxy may have a replica answer reads outside of one: a key that
//! was deleted a moment ago would be found there, and its row be reported as ignored. It reads without locks: locks
//! on the gaps of keys that are not there would make writers wait for each other in a circle.

use std::collections::HashSet;
use std::ops::Range;

use batchsql_core::{Rows, SharedRows, Written};

use crate::bind::bind_rows;
use crate::classify::{DUPLICATE, Failed, Stage};
use crate::insert::{insert, insert_all};
use crate::keys::{KEYS_PER_STATEMENT, KeyBytes, KeySearch};
use crate::link::{Link, begin, commit, ready, run, undo};
use crate::options::IgnoreWith;
use crate::piece::cut;
use crate::plan::MySqlPlan;

/// Halves of at most so many rows are written row by row.
const MAX_ROWS_ONE_BY_ONE: usize = 8;

/// Writes the rows whose key is not there.
pub(crate) async fn write_ignore(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    rows: Rows<'_>,
    with: IgnoreWith,
) -> Result<Written, Failed> {
    if with == IgnoreWith::InsertIgnore {
        return search(link, plan, rows, with).await.map(listed);
    }
    if !plan.expects_duplicates() && is_new(insert_all(link, plan, rows).await)? {
        return Ok(Written::default());
    }
    let Some(keys) = &plan.keys else {
        return search(link, plan, rows, with).await.map(listed);
    };
    begin(link).await?;
    match insert_others(link, plan, keys, rows).await {
        Ok(ignored) => {
            commit(link).await?;
            plan.set_expects_duplicates(!ignored.is_empty());
            Ok(listed(ignored))
        }
        Err(failed) => Err(undo(link, failed).await),
    }
}

/// Inserts the rows whose key is not there, inside the open transaction, and says which were ignored.
async fn insert_others(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    keys: &KeySearch,
    rows: Rows<'_>,
) -> Result<Vec<u32>, Failed> {
    let own: Vec<KeyBytes> = rows.iter().map(|row| keys.of_row(row)).collect();
    let found = find(link, plan, keys, rows).await?;
    let mut met = HashSet::with_capacity(own.len());
    let firsts = numbers(&own, |key| !found.contains(key) && met.insert(key.as_slice()));
    if firsts.is_empty() {
        return Ok(numbers(&own, |_| true));
    }
    let refused = search_halves(link, plan, gathered(rows, &firsts).rows(), IgnoreWith::Exact).await?;
    let mut written: HashSet<u32> =
        numbers_without(firsts.len(), &refused).iter().map(|n| firsts[*n as usize]).collect();
    // A row that shares its key with a refused one: that one may have been refused for another reason.
    let keys: HashSet<&KeyBytes> = refused.iter().map(|number| &own[firsts[*number as usize] as usize]).collect();
    let firsts: HashSet<u32> = firsts.into_iter().collect();
    let others: Vec<u32> = (0_u32..)
        .zip(&own)
        .filter(|(number, key)| keys.contains(key) && !firsts.contains(number))
        .map(|(number, _)| number)
        .collect();
    if !others.is_empty() {
        let refused = search_halves(link, plan, gathered(rows, &others).rows(), IgnoreWith::Exact).await?;
        written.extend(numbers_without(others.len(), &refused).iter().map(|n| others[*n as usize]));
    }
    let count = u32::try_from(rows.len()).expect("buffer_size fits u32");
    Ok((0..count).filter(|number| !written.contains(number)).collect())
}

fn listed(ignored: Vec<u32>) -> Written {
    let mut written = Written::default();
    written.ignored = ignored;
    written
}

/// Whether every row was new; an error that is not about a duplicate is one.
fn is_new(inserted: Result<(), Failed>) -> Result<bool, Failed> {
    match inserted {
        Ok(()) => Ok(true),
        Err(failed) if failed.code == DUPLICATE => Ok(false),
        Err(failed) => Err(failed),
    }
}

fn gathered(rows: Rows<'_>, numbers: &[u32]) -> SharedRows {
    if numbers.len() == rows.len() { rows.to_shared() } else { rows.gather(numbers) }
}

/// The numbers of the keys for which `take` is true.
fn numbers<'a>(keys: &'a [KeyBytes], mut take: impl FnMut(&'a KeyBytes) -> bool) -> Vec<u32> {
    (0_u32..).zip(keys).filter_map(|(number, key)| take(key).then_some(number)).collect()
}

/// Every number below `len` that is not listed; `listed` is ascending.
fn numbers_without(len: usize, listed: &[u32]) -> Vec<u32> {
    let mut listed = listed.iter().peekable();
    let len = u32::try_from(len).expect("buffer_size fits u32");
    (0..len).filter(|number| listed.next_if(|next| *next == number).is_none()).collect()
}

/// The keys of the rows that are in the table. It is the first read of the transaction, so that what others have
/// committed is seen whatever the isolation level.
async fn find(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    keys: &KeySearch,
    rows: Rows<'_>,
) -> Result<HashSet<KeyBytes>, Failed> {
    let table = link.table;
    let open = |error| Failed::sent(error, Stage::Open, table);
    let mut found = HashSet::new();
    for piece in cut(plan, rows)? {
        let mut start = piece.rows.start;
        while start < piece.rows.end {
            let end = piece.rows.end.min(start + KEYS_PER_STATEMENT);
            let part = rows.slice(start..end);
            let statement = keys.select(part.len());
            let arguments = bind_rows(part, plan.schema().key_columns(), &plan.storage, 0).map_err(Failed::unsent)?;
            ready(link.connection, &statement).await?;
            let query = sqlx::query_with(&statement.sql, arguments).persistent(statement.keep);
            for row in &query.fetch_all(&mut *link.connection).await.map_err(open)? {
                found.insert(keys.of_found(row).map_err(open)?);
            }
            start = end;
        }
    }
    Ok(found)
}

/// What a statement did with its rows.
enum Inserted {
    All,
    Nothing,
    /// Some were new, and the statement was undone.
    Some,
}

/// Writes the rows in one transaction, in their order, and says which were ignored.
async fn search(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>, with: IgnoreWith) -> Result<Vec<u32>, Failed> {
    begin(link).await?;
    match search_halves(link, plan, rows, with).await {
        Ok(ignored) => commit(link).await.map(|()| ignored),
        Err(failed) => Err(undo(link, failed).await),
    }
}

async fn search_halves(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    rows: Rows<'_>,
    with: IgnoreWith,
) -> Result<Vec<u32>, Failed> {
    let mut ignored = Vec::new();
    // What is left to do, the next last.
    let mut left: Vec<Range<usize>> = cut(plan, rows)?.into_iter().rev().map(|piece| piece.rows).collect();
    while let Some(range) = left.pop() {
        let len = range.len();
        match try_insert(link, plan, rows, range.clone(), with).await? {
            Inserted::All => {}
            Inserted::Nothing => ignored.extend(range.map(|row| u32::try_from(row).expect("buffer_size fits u32"))),
            Inserted::Some if len <= MAX_ROWS_ONE_BY_ONE => left.extend(range.rev().map(|row| row..row + 1)),
            Inserted::Some => {
                // A power of two, because such statements stay prepared.
                let middle = range.start + (1 << (len - 1).ilog2());
                left.push(middle..range.end);
                left.push(range.start..middle);
            }
        }
    }
    Ok(ignored)
}

/// Whether a row was refused as a duplicate although its key is not there: a trigger has met one in a table of its own.
/// Where the table has further unique indexes, it is taken for a duplicate in one of them.
async fn is_of_another_table(link: &mut Link<'_>, plan: &MySqlPlan, row: Rows<'_>) -> Result<bool, Failed> {
    let Some(keys) = plan.keys.as_ref().filter(|_| plan.table().unique_indexes.len() == 1) else { return Ok(false) };
    let arguments = bind_rows(row, plan.schema().key_columns(), &plan.storage, 0).map_err(Failed::unsent)?;
    // With a lock, so that it is read as it is now, not as it was when the transaction began.
    let sql = format!("{} LOCK IN SHARE MODE", keys.select(1).sql);
    let query = sqlx::query_with(&sql, arguments).persistent(false);
    match query.fetch_optional(&mut *link.connection).await {
        Ok(found) => Ok(found.is_none()),
        // Not every server knows the lock.
        Err(sqlx::Error::Database(_)) => Ok(false),
        Err(error) => Err(Failed::sent(error, Stage::Open, link.table)),
    }
}

/// Inserts a range of rows inside the open transaction.
async fn try_insert(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    rows: Rows<'_>,
    range: Range<usize>,
    with: IgnoreWith,
) -> Result<Inserted, Failed> {
    let (len, part) = (range.len(), rows.slice(range));
    let pieces = cut(plan, part)?;
    let piece = pieces.first().expect("a part of a piece is one piece");
    match with {
        IgnoreWith::Exact => match insert(link, plan, piece, part, Stage::Open).await {
            Ok(_) => Ok(Inserted::All),
            // The server undoes the statement, not the transaction.
            Err(failed) if failed.code == DUPLICATE && len > 1 => Ok(Inserted::Some),
            Err(failed) if failed.code == DUPLICATE => {
                if is_of_another_table(link, plan, part).await? {
                    Err(failed)
                } else {
                    Ok(Inserted::Nothing)
                }
            }
            Err(failed) => Err(failed),
        },
        IgnoreWith::InsertIgnore => {
            run(link, "SAVEPOINT batchsql", Stage::Open).await?;
            match insert(link, plan, piece, part, Stage::Open).await? {
                // The number of rows inserted: with IGNORE, no row is ever updated.
                0 => Ok(Inserted::Nothing),
                inserted if inserted == len as u64 => Ok(Inserted::All),
                _ => run(link, "ROLLBACK TO SAVEPOINT batchsql", Stage::Open).await.map(|()| Inserted::Some),
            }
        }
    }
}
