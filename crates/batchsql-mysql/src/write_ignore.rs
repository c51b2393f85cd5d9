//! Owns `Conflict::ignore`: rows with an existing key are left out and reported as ignored.
//! Must not know pools or plans of other ways.
//!
//! A no-op `ON DUPLICATE KEY UPDATE` does not show which rows are new: with the flag CLIENT_FOUND_ROWS, which `sqlx`
//! sets, an old row counts like a new one. So a batch takes these steps, and most batches only the first:
//!
//! 1. A plain insert in one statement. When it succeeds, every row was new.
//! 2. After error 1062, which rolls back the statement, or if the last batch had duplicates: in one transaction,
//!    query the existing keys and insert the other rows.
//! 3. If that also fails with 1062 (the server treats more keys as equal than we do, another unique index,
//!    another writer): in the same transaction, halve the rows repeatedly, down to single rows.
//!
//! The keys are read inside the transaction, because a proxy may route reads outside of one to a replica: a recently
//! deleted key would be found there, and its row reported as ignored. The read takes no locks: gap locks for missing
//! keys would make writers deadlock.

use std::collections::HashSet;
use std::ops::Range;

use batchsql_core::{Rows, Schema, SharedRows, Written};

use crate::bind::bind_rows;
use crate::catalog::UniqueIndex;
use crate::classify::{DUPLICATE, Failed, Stage, number};
use crate::insert::{insert, insert_all};
use crate::keys::{KEYS_PER_STATEMENT, KeyBytes, KeySearch};
use crate::link::{Link, begin, commit, ready, run, undo, without_savepoint};
use crate::piece::cut;
use crate::plan::MySqlPlan;
use crate::settings::IgnoreWith;
use crate::words::DuplicateIn;

/// Halves of at most this many rows are written row by row.
const MAX_ROWS_ONE_BY_ONE: usize = 8;

/// Writes the rows whose key does not exist.
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

/// Inserts the rows whose key does not exist, inside the open transaction, and reports which were ignored.
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
    // A row that shares its key with a rejected one: that one may have been rejected for another reason.
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

/// Whether every row was new; an error that is not about a duplicate is returned.
fn is_new(inserted: Result<(), Failed>) -> Result<bool, Failed> {
    match inserted {
        Ok(()) => Ok(true),
        // If the rollback failed, the next transaction must not commit the rest.
        Err(failed) if failed.code == DUPLICATE && failed.usable => Ok(false),
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

/// The keys of the rows that are in the table. It is the first read of the transaction, so it sees commits of
/// other sessions in every isolation level.
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

/// The result of a statement for its rows.
enum Inserted {
    All,
    Nothing,
    /// Some were new, and the statement was rolled back.
    Some,
}

/// Writes the rows in one transaction, in their order, and reports which were ignored.
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
    // The remaining ranges, the next one last.
    let mut left: Vec<Range<usize>> = cut(plan, rows)?.into_iter().rev().map(|piece| piece.rows).collect();
    while let Some(range) = left.pop() {
        let len = range.len();
        match try_insert(link, plan, rows, range.clone(), with).await? {
            Inserted::All => {}
            Inserted::Nothing => ignored.extend(range.map(|row| u32::try_from(row).expect("buffer_size fits u32"))),
            Inserted::Some if len <= MAX_ROWS_ONE_BY_ONE => left.extend(range.rev().map(|row| row..row + 1)),
            Inserted::Some => {
                // A power of two, because statements of that size stay prepared.
                let middle = range.start + (1 << (len - 1).ilog2());
                left.push(middle..range.end);
                left.push(range.start..middle);
            }
        }
    }
    Ok(ignored)
}

/// Whether a row was rejected as a duplicate although its key does not exist: a trigger found a duplicate in another
/// table. If that may be a duplicate in a further unique index of the table, or the server does not support a locking
/// read, it counts as a duplicate in this table.
async fn is_of_another_table(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    row: Rows<'_>,
    found_in: DuplicateIn,
) -> Result<bool, Failed> {
    let indexes = &plan.table().unique_indexes;
    let is_possible = match found_in {
        DuplicateIn::AnotherTable => true,
        DuplicateIn::Index(place) => is_over_key(&indexes[place], plan.schema()),
        DuplicateIn::Unknown => indexes.len() == 1,
    };
    let Some(keys) = plan.keys.as_ref().filter(|_| is_possible) else { return Ok(false) };
    let arguments = bind_rows(row, plan.schema().key_columns(), &plan.storage, 0).map_err(Failed::unsent)?;
    // A locking read sees the current state, not the state at the start of the transaction.
    let sql = format!("{} LOCK IN SHARE MODE", keys.select(1).sql);
    let query = sqlx::query_with(&sql, arguments).persistent(false);
    match query.fetch_optional(&mut *link.connection).await {
        Ok(found) => Ok(found.is_none()),
        // Not every server supports the lock, or allows it to a user who may only insert and read; the transaction
        // continues. After every other error it may have been rolled back, so it must not be committed.
        Err(sqlx::Error::Database(error)) if is_not_understood(number(error.as_ref())) => Ok(false),
        Err(error) => Err(Failed::sent(error, Stage::Open, link.table)),
    }
}

/// Whether a unique index is over the columns of the key.
pub(crate) fn is_over_key(index: &UniqueIndex, schema: &Schema) -> bool {
    let is_in_key = |name: &String| schema.key_columns().iter().any(|column| schema.columns()[*column].name() == name);
    index.columns.len() == schema.key_columns().len()
        && index.columns.iter().flatten().filter(|name| is_in_key(name)).count() == index.columns.len()
}

/// A syntax error, an unsupported statement or a missing right: nothing was executed.
fn is_not_understood(code: u16) -> bool {
    matches!(code, 1064 | 1142 | 1143 | 1235)
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
            // The server rolls back the statement, not the transaction.
            Err(failed) if failed.code == DUPLICATE && len > 1 => Ok(Inserted::Some),
            Err(failed) if failed.code == DUPLICATE => {
                if is_of_another_table(link, plan, part, failed.duplicate_in).await? {
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
                _ => run(link, "ROLLBACK TO SAVEPOINT batchsql", Stage::Open)
                    .await
                    .map(|()| Inserted::Some)
                    .map_err(without_savepoint),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_undoes_the_transaction_is_not_passed_over() {
        // Deadlock, lock timeout with innodb_rollback_on_timeout, snapshot isolation, killed, time limit
        // exceeded.
        for code in [1213, 1205, 1020, 1317, 1969, 3024] {
            assert!(!is_not_understood(code), "{code}");
        }
        assert!(is_not_understood(1064) && is_not_understood(1142));
    }
}
