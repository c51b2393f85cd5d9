//! Owns the tables of one pipeline, found by schema without a lock: the first thing every row does.
//! Must not know what a table does with rows.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::group::Table;
use crate::schema::Schema;

/// Slots of the first chunk; each further chunk has twice as many as the one before.
const FIRST_CHUNK: usize = 64;
/// Enough chunks for any number of schemas that fits into memory.
const CHUNKS: usize = 40;

type Chunk = Box<[OnceLock<Arc<Table>>]>;

/// Tables by the number of their schema, which is small. A table keeps its schema alive, so a number
/// never comes to mean another schema while the pipeline knows it.
pub(crate) struct Tables {
    chunks: [OnceLock<Chunk>; CHUNKS],
    /// The same tables in the order of their coming.
    list: Mutex<Vec<Arc<Table>>>,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS], list: Mutex::default() }
    }

    /// The table of a schema, when it is known.
    #[inline]
    pub(crate) fn get(&self, schema: &Schema) -> Option<&Arc<Table>> {
        let (chunk, slot) = place(schema.id().index());
        self.chunks[chunk].get()?[slot].get()
    }

    /// The table of a schema, made with its number when it is not known.
    pub(crate) fn get_or_insert(&self, schema: &Schema, make: impl FnOnce(usize) -> Table) -> &Arc<Table> {
        let (chunk, slot) = place(schema.id().index());
        let chunk = self.chunks[chunk].get_or_init(|| (0..FIRST_CHUNK << chunk).map(|_| OnceLock::new()).collect());
        chunk[slot].get_or_init(|| {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            let table = Arc::new(make(list.len()));
            list.push(Arc::clone(&table));
            table
        })
    }

    /// Every table.
    pub(crate) fn all(&self) -> Vec<Arc<Table>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The chunk of an index, and the slot in it.
fn place(index: usize) -> (usize, usize) {
    let chunk = (index / FIRST_CHUNK + 1).ilog2() as usize;
    (chunk, index - FIRST_CHUNK * ((1 << chunk) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(place(index), expected, "index {index}");
            expected.1 += 1;
            if expected.1 == FIRST_CHUNK << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }
}
