//! Owns the texts of statements by size, and which of them stay prepared.
//! Must not know tables or rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use batchsql_sql::KeptSizes;

/// Maximum rows per statement, even if more would fit.
pub(crate) const PREFERRED_ROWS: usize = 10_000;

/// The text of a statement, and whether it stays prepared.
pub(crate) struct Statement {
    pub(crate) sql: Arc<str>,
    pub(crate) keep: bool,
}

/// Statements by size; sizes that repeat keep their text.
#[derive(Default)]
pub(crate) struct Statements(Mutex<(KeptSizes, HashMap<usize, Arc<str>>)>);

impl Statements {
    /// The sizes of statements that stay prepared and together hold `rows` rows.
    pub(crate) fn split(&self, rows: usize) -> Vec<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.split(rows)
    }

    /// Whether the statement for `size` rows stays prepared.
    pub(crate) fn keeps(&self, size: usize) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.keeps(size)
    }

    /// The statement for `size` rows or keys; `text` creates its text.
    pub(crate) fn get(&self, size: usize, text: impl FnOnce() -> String) -> Statement {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sizes, texts) = &mut *guard;
        let keep = sizes.keeps(size);
        if let Some(sql) = texts.get(&size) {
            return Statement { sql: Arc::clone(sql), keep };
        }
        let sql: Arc<str> = text().into();
        if keep {
            // A size that is no longer kept is rarely used: its text is removed when there are too many.
            if texts.len() >= KeptSizes::bound(PREFERRED_ROWS) {
                texts.clear();
            }
            texts.insert(size, Arc::clone(&sql));
        }
        Statement { sql, keep }
    }
}
