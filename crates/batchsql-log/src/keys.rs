//! Owns the keys that the log knows: a bounded number of them, for a limited time.
//! Must not know files, or what a key means.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::format::keys::KeyRecord;

/// What is kept at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyLimits {
    pub(crate) most: usize,
    /// Of keys and values in a record.
    pub(crate) bytes: usize,
    pub(crate) keep_for: Duration,
}

/// Keys in the order in which they were stored; the oldest ones are removed for new ones.
#[derive(Debug)]
pub(crate) struct Keys {
    limits: KeyLimits,
    by_key: HashMap<Arc<[u8]>, u64>,
    by_number: BTreeMap<u64, KeyRecord>,
    next: u64,
    bytes: usize,
}

impl Keys {
    pub(crate) fn new(limits: KeyLimits) -> Self {
        Keys { limits, by_key: HashMap::new(), by_number: BTreeMap::new(), next: 0, bytes: 0 }
    }

    /// Adds a key, in place of an older one with the same bytes.
    pub(crate) fn insert(&mut self, key: KeyRecord, now: u64) {
        if let Some(number) = self.by_key.remove(&key.key) {
            self.remove(number);
        }
        self.bytes += key.size();
        self.by_key.insert(Arc::clone(&key.key), self.next);
        self.by_number.insert(self.next, key);
        self.next += 1;
        self.expire(now);
        while self.by_number.len() > self.limits.most || self.bytes > self.limits.bytes {
            let Some((&oldest, _)) = self.by_number.first_key_value() else { break };
            self.remove(oldest);
        }
    }

    /// Forgets the oldest keys whose time is over.
    pub(crate) fn expire(&mut self, now: u64) {
        while let Some((&oldest, key)) = self.by_number.first_key_value()
            && !self.is_kept(key, now)
        {
            self.remove(oldest);
        }
    }

    pub(crate) fn get(&self, key: &[u8], now: u64) -> Option<&KeyRecord> {
        let number = self.by_key.get(key)?;
        self.by_number.get(number).filter(|key| self.is_kept(key, now))
    }

    /// All of them but those, the oldest first.
    pub(crate) fn all_but(&self, left_out: &HashSet<Arc<[u8]>>) -> Vec<KeyRecord> {
        self.by_number.values().filter(|key| !left_out.contains(&key.key)).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// A clock that goes back keeps a key for longer.
    fn is_kept(&self, key: &KeyRecord, now: u64) -> bool {
        u128::from(now.saturating_sub(key.time)) < self.limits.keep_for.as_millis()
    }

    fn remove(&mut self, number: u64) {
        if let Some(key) = self.by_number.remove(&number) {
            self.bytes -= key.size();
            if self.by_key.get(&key.key) == Some(&number) {
                self.by_key.remove(&key.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, time: u64) -> KeyRecord {
        KeyRecord { key: name.as_bytes().into(), value: (*b"v").into(), time }
    }

    fn names(keys: &Keys) -> Vec<String> {
        keys.all_but(&HashSet::new()).iter().map(|key| String::from_utf8_lossy(&key.key).into_owned()).collect()
    }

    #[test]
    fn keys_are_bounded_in_number_bytes_and_time() {
        let limits = KeyLimits { most: 3, bytes: 1000, keep_for: Duration::from_millis(100) };
        let mut keys = Keys::new(limits);
        for (name, time) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            keys.insert(key(name, time), time);
        }
        assert_eq!(names(&keys), ["b", "c", "d"]);
        keys.insert(key("b", 5), 5);
        assert_eq!(names(&keys), ["c", "d", "b"], "the newer one takes the place of the older one");
        assert_eq!(keys.get(b"b", 104).map(|key| key.time), Some(5));
        assert_eq!(keys.get(b"b", 105), None, "its time is over");
        assert!(keys.get(b"b", 0).is_some(), "the clock went back");
        keys.insert(key("e", 104), 104);
        assert_eq!(names(&keys), ["b", "e"]);

        let mut keys = Keys::new(KeyLimits { bytes: 2 * key("a", 0).size(), ..limits });
        ["a", "b", "c"].iter().for_each(|name| keys.insert(key(name, 1), 1));
        assert_eq!((names(&keys), keys.len()), (vec!["b".to_owned(), "c".to_owned()], 2));
        let mut none = Keys::new(KeyLimits { most: 0, ..limits });
        none.insert(key("a", 1), 1);
        assert_eq!((none.len(), none.bytes, none.by_key.len()), (0, 0, 0));
    }
}
