//! Owns which rows were inserted, told by the keys that the server returns.
//! Must not know statements or transactions.

use std::collections::HashMap;

use batchsql_core::{ErrorClass, Rows, SinkError};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::encode::write_field;
use crate::plan::Field;

/// The rows that were ignored, by number, ascending. `answer` is how many rows were inserted and, when these are not
/// all, one array per key column with the keys of those that were.
///
/// The keys are compared byte by byte with the keys that were sent, so this is only for keys that come back as they
/// were sent ([`crate::types::Echo`]). Of several rows with one key the first one was inserted: the server takes them
/// in their order.
pub(crate) fn ignored_rows(rows: Rows<'_>, fields: &[Field], answer: &PgRow) -> Result<Vec<u32>, SinkError> {
    let inserted: i64 = answer.try_get(0).map_err(|_| not_understood())?;
    if usize::try_from(inserted) == Ok(rows.len()) {
        return Ok(Vec::new());
    }
    let key = rows.schema().key_columns();
    let mut is_inserted = vec![false; rows.len()];
    if inserted > 0 {
        let (sent, ends) = sent_keys(rows, fields)?;
        let mut first_row: HashMap<&[u8], usize> = HashMap::with_capacity(rows.len());
        let mut start = 0;
        for (row, end) in ends.into_iter().enumerate() {
            first_row.entry(&sent[start..end]).or_insert(row);
            start = end;
        }
        let mut arrays = (1..=key.len()).map(|column| elements(answer, column)).collect::<Result<Vec<_>, _>>()?;
        let mut returned = Vec::new();
        for _ in 0..inserted {
            returned.clear();
            for array in &mut arrays {
                returned.extend_from_slice(next_element(array).ok_or_else(not_understood)?);
            }
            let row = first_row.get(&*returned).ok_or_else(not_understood)?;
            is_inserted[*row] = true;
        }
    }
    let ignored = (0..).zip(is_inserted).filter(|(_, is_inserted)| !is_inserted);
    let ignored: Vec<u32> = ignored.map(|(row, _)| row).collect();
    // Each returned key must be that of another row.
    if ignored.len() + inserted as usize == rows.len() { Ok(ignored) } else { Err(not_understood()) }
}

/// The keys in the form in which they were sent, and where each one ends.
fn sent_keys(rows: Rows<'_>, fields: &[Field]) -> Result<(Vec<u8>, Vec<usize>), SinkError> {
    let (mut keys, mut ends) = (Vec::new(), Vec::with_capacity(rows.len()));
    for row in 0..rows.len() {
        for column in rows.schema().key_columns() {
            let value = rows.column(*column).get(row);
            write_field(&mut keys, value, fields[*column].form.wire).map_err(|_| not_understood())?;
        }
        ends.push(keys.len());
    }
    Ok((keys, ends))
}

/// The elements of a binary array of one dimension.
fn elements(answer: &PgRow, column: usize) -> Result<&[u8], SinkError> {
    const HEADER: usize = 20;
    let array = answer.try_get_raw(column).ok().and_then(|value| value.as_bytes().ok());
    array.and_then(|array| array.get(HEADER..)).ok_or_else(not_understood)
}

/// Takes one element with its length off the front.
fn next_element<'a>(elements: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = i32::from_be_bytes(elements.get(..4)?.try_into().ok()?);
    let (element, rest) = elements.split_at_checked(4 + usize::try_from(len).ok()?)?;
    *elements = rest;
    Some(element)
}

/// The rows may be committed, and which ones is not known.
fn not_understood() -> SinkError {
    SinkError::new(
        ErrorClass::Unknown,
        "the server returned other keys than were sent; look for triggers or rules of the table",
    )
}
