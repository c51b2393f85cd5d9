//! Owns the keys of the requests that are being stored.
//! Must not know the log, which knows those that are stored.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// As many as groups of rows wait for the log.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<HashSet<Vec<u8>>>);

/// A key that is being stored, with its value; until it is dropped, nobody else can store it.
#[derive(Debug)]
pub(crate) struct KeyInFlight {
    all: Arc<InFlight>,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// The bytes of a key and its value in the log.
pub(crate) fn key_bytes(key: &[u8], value: &[u8]) -> usize {
    /// Two lengths and a time.
    const OVERHEAD: usize = 16;
    OVERHEAD + key.len() + value.len()
}

/// Why a key cannot be stored now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<K> {
    InUse,
    /// What is known about it.
    Known(K),
}

impl InFlight {
    /// Takes a key, unless it is being stored, or `known` finds it.
    pub(crate) fn take<K>(
        self: &Arc<Self>,
        key: &[u8],
        value: &[u8],
        known: impl FnOnce() -> Option<K>,
    ) -> Result<KeyInFlight, Taken<K>> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.contains(key) {
            return Err(Taken::InUse);
        }
        // A key leaves this set only when it is known, or not stored.
        if let Some(known) = known() {
            return Err(Taken::Known(known));
        }
        keys.insert(key.to_owned());
        Ok(KeyInFlight { all: Arc::clone(self), key: key.to_owned(), value: value.to_owned() })
    }
}

impl Drop for KeyInFlight {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_once() {
        let keys = Arc::new(InFlight::default());
        let take = |known: Option<u8>| keys.take(b"k", b"v", || known);
        let held = take(None).unwrap();
        assert_eq!(take(None).unwrap_err(), Taken::InUse);
        assert_eq!(take(Some(7)).unwrap_err(), Taken::InUse, "it may be another one that is stored now");
        drop(held);
        assert_eq!(take(Some(7)).unwrap_err(), Taken::Known(7));
        assert!(take(None).is_ok() && take(None).is_ok());
    }
}
