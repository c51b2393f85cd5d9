//! Owns rules whose outcome depends on the stored row: only if newer, update without insert, delete.
//! Must not know pools or plans of other ways.
//!
//! A total of affected rows does not show which rows were changed: with the flag CLIENT_FOUND_ROWS, which `sqlx` sets, a
//! row that stays as it is counts like a new one. So the stored rows are locked and read first:
//!
//! 1. In a transaction, `SELECT key, version … FOR UPDATE`. Under READ COMMITTED only existing rows are locked. Under
//!    REPEATABLE READ, gaps would be locked too, and writers that insert neighbouring keys would deadlock.
//! 2. Rows that lose, or find nothing, are ignored. The others are written: existing rows as the rule says, new ones by a
//!    plain insert.
//! 3. If the insert finds a duplicate (error 1062), another writer has inserted the key meanwhile: the transaction is
//!    rolled back, and begins again.
//!
//! If every key exists, these steps are not needed, see [`all_exist`](crate::all_exist). So the rows of an update only or a
//! delete are first written as if they did, until keys are missing.
//!
//! Keys that the server treats as equal although their values differ (collations) show in step 1: a row is found whose
//! key was not sent; or, of two texts that were sent, one is found and the other is not. Then each row is locked and written
//! on its own, in its turn.

use std::cmp::Ordering;
use std::collections::HashMap;

use batchsql_core::exhaustive::{Value, compare};
use batchsql_core::{Action, ErrorClass, Rows, SinkError, ValueRef, Written};
use batchsql_sql::mysql::{OnDuplicate, insert_values, select_keys};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::all_exist::{may_all_exist, write_as_existing};
use crate::bind::bind_rows;
use crate::change::change_existing;
use crate::classify::{DUPLICATE, Failed, Stage};
use crate::insert::send;
use crate::keys::{KEYS_PER_STATEMENT, KeyBytes, KeySearch, push_value};
use crate::link::{Link, begin, commit, ready, roll_back, run, undo};
use crate::piece::cut;
use crate::plan::MySqlPlan;
use crate::words::DuplicateIn;
use crate::write_ignore::is_over_key;

/// How often a transaction begins again because another writer inserted a key, before its rows are locked one by one.
const RACES: usize = 3;

const RACE: &str = "other writers keep inserting the same keys, or a trigger changes the key of a row that is inserted, so that \
                    the row is not found before and exists then; the rows are tried again";

/// A stored row, locked.
struct Stored {
    /// The version as text; `None` is `NULL`, or there is no version.
    version: Option<Vec<u8>>,
}

/// Why a transaction begins again.
enum Again {
    /// Another writer inserted a key.
    Race,
    /// The server treats more keys as equal than we do.
    UnknownKey,
}

/// Writes the rows in one transaction, in their order.
pub(crate) async fn write_by_key(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<Written, Failed> {
    if may_all_exist(plan, rows) && !plan.expects_missing() {
        if write_as_existing(link, plan, rows).await? {
            return Ok(Written::default());
        }
        plan.set_expects_missing(true);
    }
    let mut races = 0;
    let mut one_by_one = plan.keys.is_none();
    loop {
        // Of the next transaction only: nothing of the session changes.
        run(link, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED", Stage::Open).await?;
        begin(link).await?;
        let done = if one_by_one { each(link, plan, rows).await } else { together(link, plan, rows).await };
        match done {
            Ok(Ok(ignored)) => {
                commit(link).await?;
                plan.set_expects_missing(!ignored.is_empty());
                let mut written = Written::default();
                written.ignored = ignored;
                return Ok(written);
            }
            Ok(Err(again)) => {
                roll_back(link).await?;
                races += 1;
                one_by_one |= matches!(again, Again::UnknownKey) || races >= RACES;
                if races > 2 * RACES {
                    // With the code, the pipeline searches for the row if it is always the same.
                    let error = SinkError::with_code(ErrorClass::Transient, DUPLICATE.to_string(), RACE);
                    return Err(Failed::unsent(error));
                }
            }
            Err(failed) => return Err(undo(link, failed).await),
        }
    }
}

/// All rows that have different keys together. Returns the ignored rows.
async fn together(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<Result<Vec<u32>, Again>, Failed> {
    let keys = plan.keys.as_ref().expect("rows without comparable keys are written one by one");
    let mut ignored = Vec::new();
    for wave in keys.waves(rows) {
        let shared = rows.gather(&wave);
        let rows = shared.rows();
        let mut stored = Vec::with_capacity(rows.len());
        for piece in cut(plan, rows)? {
            let mut start = piece.rows.start;
            while start < piece.rows.end {
                let end = piece.rows.end.min(start + KEYS_PER_STATEMENT);
                match lock(link, plan, keys, rows.slice(start..end)).await? {
                    Some(found) => stored.extend(found),
                    None => return Ok(Err(Again::UnknownKey)),
                }
                start = end;
            }
        }
        // Two of the sent keys may be one to the server: then only one of them was found.
        let inserts = plan.schema().action() == Action::Update;
        if plan.locks.has_text_key
            && !inserts
            && stored.iter().any(Option::is_some)
            && stored.iter().any(Option::is_none)
        {
            return Ok(Err(Again::UnknownKey));
        }
        match change(link, plan, rows, &stored, false).await? {
            Ok(of_wave) => ignored.extend(of_wave.into_iter().map(|row| wave[row as usize])),
            Err(again) => return Ok(Err(again)),
        }
    }
    ignored.sort_unstable();
    Ok(Ok(ignored))
}

/// The rows one by one: the server compares each key.
async fn each(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<Result<Vec<u32>, Again>, Failed> {
    let mut ignored = Vec::new();
    for number in 0..rows.len() {
        let row = rows.slice(number..number + 1);
        let found = select(link, plan, row, &plan.locks.shown_version()).await?;
        let stored = found.first().map(|found| Ok(Stored { version: bytes(found, 0)? })).transpose();
        let stored = stored.map_err(|error| Failed::sent(error, Stage::Open, link.table))?;
        match change(link, plan, row, &[stored], true).await? {
            Ok(of_row) if of_row.is_empty() => {}
            Ok(_) => ignored.push(u32::try_from(number).expect("buffer_size fits u32")),
            Err(again) => return Ok(Err(again)),
        }
    }
    Ok(Ok(ignored))
}

/// Locks the rows with these keys, and returns what is stored for each; `None` if a row was found whose key was not sent.
async fn lock(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    keys: &KeySearch,
    rows: Rows<'_>,
) -> Result<Option<Vec<Option<Stored>>>, Failed> {
    let own: Vec<KeyBytes> = rows.iter().map(|row| keys.of_row(row)).collect();
    let place: HashMap<&KeyBytes, usize> = own.iter().enumerate().map(|(place, key)| (key, place)).collect();
    let mut stored: Vec<Option<Stored>> = std::iter::repeat_with(|| None).take(rows.len()).collect();
    let shown: Vec<String> = keys.shown().iter().cloned().chain(plan.locks.shown_version()).collect();
    let version = keys.shown().len();
    for found in &select(link, plan, rows, &shown).await? {
        let open = |error| Failed::sent(error, Stage::Open, link.table);
        let Some(place) = place.get(&keys.of_found(found).map_err(open)?) else { return Ok(None) };
        stored[*place] = Some(Stored { version: bytes(found, version).map_err(open)? });
    }
    Ok(Some(stored))
}

fn bytes(found: &MySqlRow, column: usize) -> sqlx::Result<Option<Vec<u8>>> {
    // There is no such column if there is no version.
    if column >= found.len() {
        return Ok(None);
    }
    found.try_get_unchecked::<Option<&[u8]>, _>(column).map(|bytes| bytes.map(<[u8]>::to_vec))
}

/// Reads and locks the rows with these keys.
async fn select(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    rows: Rows<'_>,
    shown: &[String],
) -> Result<Vec<MySqlRow>, Failed> {
    let text = || format!("{} FOR UPDATE", select_keys(plan.schema(), rows.len(), &plan.locks.values(), shown));
    // Reads one by one show other columns.
    let statement = match shown == plan.locks.shown_version() {
        true => plan.locks.alone.get(rows.len(), text),
        false => plan.locks.together.get(rows.len(), text),
    };
    let arguments = bind_rows(rows, plan.schema().key_columns(), &plan.storage, 0).map_err(Failed::unsent)?;
    ready(link.connection, &statement).await?;
    let query = sqlx::query_with(&statement.sql, arguments).persistent(statement.keep);
    query.fetch_all(&mut *link.connection).await.map_err(|error| Failed::sent(error, Stage::Open, link.table))
}

/// Writes rows of different keys, of which the stored ones are locked. Returns the ignored ones.
async fn change(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    rows: Rows<'_>,
    stored: &[Option<Stored>],
    one_by_one: bool,
) -> Result<Result<Vec<u32>, Again>, Failed> {
    let version = plan.schema().version_column();
    let inserts = plan.schema().action() == Action::Update;
    let (mut existing, mut new, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
    for (number, stored) in (0_u32..).zip(stored) {
        let is_newer = |stored: &Stored| {
            version.is_none_or(|column| is_newer(rows.column(column).get(number as usize), stored.version.as_deref()))
        };
        match stored {
            Some(stored) if is_newer(stored) => existing.push(number),
            None if inserts => new.push(number),
            _ => ignored.push(number),
        }
    }
    if !existing.is_empty() {
        let shared = rows.gather(&existing);
        change_existing(link, plan, shared.rows(), one_by_one).await?;
    }
    if !new.is_empty() {
        let shared = rows.gather(&new);
        match insert_new(link, plan, shared.rows()).await {
            Err(failed) if failed.usable && is_race(plan, &failed) => return Ok(Err(Again::Race)),
            inserted => inserted?,
        }
    }
    Ok(Ok(ignored))
}

/// Whether a row was refused because its key exists by now.
fn is_race(plan: &MySqlPlan, failed: &Failed) -> bool {
    let indexes = &plan.table().unique_indexes;
    failed.code == DUPLICATE
        && match failed.duplicate_in {
            DuplicateIn::Index(place) => is_over_key(&indexes[place], plan.schema()),
            DuplicateIn::Unknown => indexes.len() == 1,
            DuplicateIn::AnotherTable => false,
        }
}

async fn insert_new(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<(), Failed> {
    for piece in cut(plan, rows)? {
        let text = || {
            let values: Vec<&str> = plan.storage.iter().map(|storage| storage.form.expression()).collect();
            insert_values(plan.schema(), piece.rows.len(), OnDuplicate::Fail, &values)
        };
        let statement = plan.locks.inserts.get(piece.rows.len(), text);
        send(link, plan, &piece, rows, Stage::Open, statement).await?;
    }
    Ok(())
}

/// Whether a submitted version is newer than the stored one, which is in the form of [`push_value`].
fn is_newer(submitted: ValueRef<'_>, stored: Option<&[u8]>) -> bool {
    let Some(stored) = stored else { return submitted != ValueRef::Null };
    let mut text = Vec::new();
    let digits = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    match submitted.exhaustive() {
        Value::Null => false,
        Value::I16(_) | Value::I32(_) | Value::I64(_) | Value::U64(_) => {
            push_value(&mut text, submitted);
            compare(ValueRef::Decimal(&digits(&text)), ValueRef::Decimal(&digits(stored))) == Ordering::Greater
        }
        Value::Decimal(submitted) => {
            compare(ValueRef::Decimal(submitted), ValueRef::Decimal(&digits(stored))) == Ordering::Greater
        }
        Value::F64(submitted) => digits(stored).parse::<f64>().is_ok_and(|stored| submitted > stored),
        // A stored one may be negative, or have three digits of hours.
        Value::Time(submitted) => {
            micros_of_time(&digits(stored)).is_some_and(|stored| submitted.micros_since_midnight() > stored)
        }
        Value::Date(_) | Value::Timestamp(_) | Value::TimestampTz(_) => {
            push_value(&mut text, submitted);
            *text > *stored
        }
        // A plan has no such version.
        Value::Bool(_) | Value::F32(_) | Value::Text(_) | Value::Bytes(_) | Value::Uuid(_) | Value::Json(_) => false,
    }
}

/// The microseconds of `[-]hh:mm:ss.ffffff`.
fn micros_of_time(text: &str) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut seconds = 0_i64;
    for part in whole.split(':') {
        seconds = seconds * 60 + part.parse::<i64>().ok()?;
    }
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    Some(sign * (seconds * 1_000_000 + micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_values() {
        let check = |submitted, stored: Option<&str>, expected| {
            assert_eq!(is_newer(submitted, stored.map(str::as_bytes)), expected, "{submitted:?} {stored:?}");
        };
        check(ValueRef::I64(10), Some("9"), true);
        check(ValueRef::I64(9), Some("9"), false);
        check(ValueRef::I64(-1), Some("-2"), true);
        check(ValueRef::I64(0), None, true);
        check(ValueRef::Null, None, false);
        check(ValueRef::Null, Some("1"), false);
        check(ValueRef::Decimal("1.5"), Some("1.50"), false);
        check(ValueRef::Decimal("1.51"), Some("1.5000"), true);
        check(ValueRef::F64(1e20), Some("1e19"), true);
        let hour = batchsql_core::Time::from_micros_since_midnight(23 * 3_600_000_000 + 5).unwrap();
        for (stored, expected) in [
            ("100:00:00.000000", false),
            ("23:00:00.000005", false),
            ("23:00:00.000004", true),
            ("09:00:00.000000", true),
            ("-838:59:59.000000", true),
            ("-00:00:00.000001", true),
        ] {
            check(ValueRef::Time(hour), Some(stored), expected);
        }
        let time = batchsql_core::Timestamp::from_micros_since_epoch(1_500_000).unwrap();
        check(ValueRef::Timestamp(time), Some("1970-01-01 00:00:01.400000"), true);
        check(ValueRef::Timestamp(time), Some("1970-01-01 00:00:01.500000"), false);
    }
}
