//! Owns values by name whose number is bounded.
//! Must not know metrics.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// The label value for all names beyond a limit.
pub(crate) const OTHER: &str = "other";

/// Values by name, at most `limit` of them; all further names share one more value.
pub(crate) struct Capped<K, V> {
    limit: usize,
    known: RwLock<HashMap<K, Arc<V>>>,
    other: OnceLock<Arc<V>>,
}

impl<K: Hash + Eq, V> Capped<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, known: RwLock::default(), other: OnceLock::new() }
    }

    /// The value of `name`, made by `new(true)`, or by `new(false)` for all names beyond the limit.
    pub(crate) fn get<Q>(&self, name: &Q, key: impl FnOnce() -> K, new: impl FnOnce(bool) -> V) -> Arc<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let is_full = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(value) = known.get(name) {
                return Arc::clone(value);
            }
            known.len() >= self.limit
        };
        if is_full {
            return Arc::clone(self.other.get_or_init(|| Arc::new(new(false))));
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.limit && !known.contains_key(name) {
            drop(known);
            return Arc::clone(self.other.get_or_init(|| Arc::new(new(false))));
        }
        Arc::clone(known.entry(key()).or_insert_with(|| Arc::new(new(true))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_names_share_one_value() {
        let capped: Capped<Box<str>, String> = Capped::new(2);
        let get = |name: &str| {
            let value =
                capped.get(name, || name.into(), |known| if known { name.to_owned() } else { OTHER.to_owned() });
            value.to_string()
        };
        assert_eq!(["a", "b", "c", "d", "a", "b"].map(get), ["a", "b", "other", "other", "a", "b"]);
        assert_eq!(capped.known.read().unwrap().len(), 2);
    }

    #[test]
    fn a_limit_of_zero_switches_the_label_off() {
        let capped: Capped<Box<str>, bool> = Capped::new(0);
        assert!(!*capped.get("a", || "a".into(), |known| known));
    }
}
