//! Owns how the key of a row is hashed, so that equal keys are in one lane.
//! Must not know lanes.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::model::value::ValueRef;

/// Hashes the key of a row. Typed and dynamic rows with equal keys give equal hashes. Adjacent integers give the same
/// hash too, so that adjacent rows of the table are written in one batch.
#[derive(Debug, Default)]
pub struct KeyHasher(DefaultHasher);

/// 256 adjacent integers have one hash: about two pages of a table, so that batches written in parallel do not use the
/// same page, and few enough that a table with a few thousand keys still uses several lanes.
const NEIGHBOURS: u32 = 8;

impl KeyHasher {
    /// Adds one key column.
    pub fn add(&mut self, value: ValueRef<'_>) {
        let number = match value {
            ValueRef::I16(v) => v.into(),
            ValueRef::I32(v) => v.into(),
            ValueRef::I64(v) => v,
            // Equal numbers are equal keys, whatever their type.
            ValueRef::U64(v) => match i64::try_from(v) {
                Ok(v) => v,
                Err(_) => return (v >> NEIGHBOURS).hash(&mut self.0),
            },
            other => return other.hash(&mut self.0),
        };
        (number >> NEIGHBOURS).hash(&mut self.0);
    }

    /// The hash of everything added.
    pub fn finish(&self) -> u64 {
        self.0.finish()
    }
}
