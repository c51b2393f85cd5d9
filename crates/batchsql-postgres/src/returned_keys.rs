//! Owns the search for the inserted rows by the keys that the server returns.
//! Must not know statements or transactions.

use std::collections::HashMap;

use batchsql_core::Rows;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::encode::write_field;
use crate::field::Field;

/// The rows that were ignored, by number, ascending. `answer` contains how many rows were inserted and, if not all,
/// one array per key column with the keys of the inserted rows.
///
/// The keys are compared byte by byte with the sent keys, so this is only for keys that are returned as they were
/// sent ([`crate::types::Echo`]). If several rows have one key, the first one was inserted: the server processes them
/// in order. `None` if the keys are not the sent ones.
pub(crate) fn ignored_rows(rows: Rows<'_>, fields: &[Field], answer: &PgRow) -> Option<Vec<u32>> {
    let inserted: i64 = answer.try_get(0).ok()?;
    if usize::try_from(inserted) == Ok(rows.len()) {
        return Some(Vec::new());
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
        let mut arrays = (1..=key.len()).map(|column| elements(answer, column)).collect::<Option<Vec<_>>>()?;
        let mut returned = Vec::new();
        for _ in 0..inserted {
            returned.clear();
            for array in &mut arrays {
                returned.extend_from_slice(next_element(array)?);
            }
            let row = first_row.get(&*returned)?;
            is_inserted[*row] = true;
        }
    }
    let ignored = (0..).zip(is_inserted).filter(|(_, is_inserted)| !is_inserted);
    let ignored: Vec<u32> = ignored.map(|(row, _)| row).collect();
    // Each returned key must belong to a different row.
    (ignored.len() + inserted as usize == rows.len()).then_some(ignored)
}

/// The keys in the form in which they were sent, and the end of each.
fn sent_keys(rows: Rows<'_>, fields: &[Field]) -> Option<(Vec<u8>, Vec<usize>)> {
    let (mut keys, mut ends) = (Vec::new(), Vec::with_capacity(rows.len()));
    for row in 0..rows.len() {
        for column in rows.schema().key_columns() {
            let value = rows.column(*column).get(row);
            write_field(&mut keys, value, fields[*column].form.wire).ok()?;
        }
        ends.push(keys.len());
    }
    Some((keys, ends))
}

/// The elements of a binary array of one dimension.
fn elements(answer: &PgRow, column: usize) -> Option<&[u8]> {
    const HEADER: usize = 20;
    answer.try_get_raw(column).ok()?.as_bytes().ok()?.get(HEADER..)
}

/// Removes the first element with its length prefix.
fn next_element<'a>(elements: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = i32::from_be_bytes(elements.get(..4)?.try_into().ok()?);
    let (element, rest) = elements.split_at_checked(4 + usize::try_from(len).ok()?)?;
    *elements = rest;
    Some(element)
}
