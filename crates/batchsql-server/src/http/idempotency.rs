//! Owns the keys of requests: how far a request came, so that a repeat of it skips the lines that were accepted.
//! Must not know HTTP or rows.
//!
//! These keys are for rows in memory: they live in this process, as the rows in its buffer do, and after its end neither is there. So
//! a key never says of a row that it was accepted when it was lost. A durable intake stores keys with the rows (`held`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::http::progress::Progress;

/// Rejections that are kept with a key.
const KEPT_REJECTIONS: usize = 20;

/// The keys of the last requests.
#[derive(Debug)]
pub(crate) struct Keys {
    entries: Mutex<HashMap<Id, Entry>>,
    keep_for: Duration,
    limit: usize,
}

/// A key belongs to a client and a table.
type Id = (String, String, String);

#[derive(Debug)]
enum Entry {
    /// A request with this key is being answered.
    InUse,
    Kept(Kept, Instant),
}

#[derive(Debug, Clone, Default)]
struct Kept {
    progress: Progress,
    /// Of the lines of the progress.
    digest: [u8; 32],
    extent: Extent,
}

/// What a body has behind the lines of the progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Extent {
    /// The request ended before its body, or before its lines were accepted: there may be more.
    #[default]
    Open,
    /// Nothing.
    Whole,
}

/// What a request with a key is.
#[derive(Debug)]
pub(crate) enum Begin {
    Go(Box<Guard>),
    /// Another request with the key is being answered.
    InUse,
    /// Every key that may be kept is in use.
    Full,
}

/// A request with a key, until it is dropped. Then its progress is kept.
#[derive(Debug)]
pub(crate) struct Guard {
    keys: Arc<Keys>,
    id: Id,
    before: Kept,
    /// Of the lines that were read.
    read: Sha256,
    /// Of the lines of the progress.
    reached: Sha256,
    /// The lines of before have come again, so the progress is about this body.
    has_come_again: bool,
    extent: Extent,
    kept: Option<Progress>,
}

/// The lines up to one, in short.
#[derive(Debug, Clone)]
pub(crate) struct Mark(Sha256);

/// The lines that were accepted before are others than those of this request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OtherBody;

impl Keys {
    pub(crate) fn new(keep_for: Duration, limit: usize) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), keep_for, limit })
    }

    /// A request with a key begins.
    pub(crate) fn begin(self: &Arc<Self>, client: &str, table: &str, key: &str, now: Instant) -> Begin {
        let id = (client.to_owned(), table.to_owned(), key.to_owned());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match entries.get(&id) {
            Some(Entry::InUse) => return Begin::InUse,
            Some(Entry::Kept(kept, at)) if now.duration_since(*at) < self.keep_for => kept.clone(),
            _ => Kept::default(),
        };
        if entries.len() >= self.limit && !entries.contains_key(&id) {
            let keep_for = self.keep_for;
            entries.retain(|_, entry| !matches!(entry, Entry::Kept(_, at) if now.duration_since(*at) >= keep_for));
            if entries.len() >= self.limit {
                let age = |entry: &Entry| if let Entry::Kept(_, at) = entry { Some(*at) } else { None };
                let oldest = entries.iter().filter_map(|(id, entry)| Some((age(entry)?, id))).min();
                let Some((_, oldest)) = oldest else { return Begin::Full };
                let oldest = oldest.clone();
                entries.remove(&oldest);
            }
        }
        entries.insert(id.clone(), Entry::InUse);
        Begin::Go(Box::new(Guard {
            keys: Arc::clone(self),
            id,
            has_come_again: before.progress.lines == 0,
            extent: before.extent,
            before,
            read: Sha256::new(),
            reached: Sha256::new(),
            kept: None,
        }))
    }
}

impl Guard {
    /// What was answered before.
    pub(crate) fn before(&self) -> &Progress {
        &self.before.progress
    }

    /// The next line of the body. `None`: it was accepted or refused before, so it is skipped.
    ///
    /// # Errors
    /// The lines until here are not those of before.
    pub(crate) fn line(&mut self, number: u64, text: &[u8]) -> Result<Option<Mark>, OtherBody> {
        self.read.update(number.to_le_bytes());
        self.read.update((text.len() as u64).to_le_bytes());
        self.read.update(text);
        let lines = self.before.progress.lines;
        if number > lines {
            if self.before.extent == Extent::Whole {
                return Err(OtherBody);
            }
            // The body is shorter than before, and other lines come in its place.
            return if self.has_come_again { Ok(Some(Mark(self.read.clone()))) } else { Err(OtherBody) };
        }
        if number == lines {
            if digest(&self.read) != self.before.digest {
                return Err(OtherBody);
            }
            self.reached = self.read.clone();
            self.has_come_again = true;
        }
        Ok(None)
    }

    /// The body is over.
    ///
    /// # Errors
    /// It has fewer lines than before.
    pub(crate) fn end(&self) -> Result<(), OtherBody> {
        if self.has_come_again { Ok(()) } else { Err(OtherBody) }
    }

    /// The body has ended, and each of its lines was accepted or refused.
    pub(crate) fn complete(&mut self) {
        self.extent = Extent::Whole;
    }

    /// The lines up to the mark were accepted or refused.
    pub(crate) fn reach(&mut self, mark: Mark) {
        self.reached = mark.0;
    }

    /// What is kept when the request ends. Before the lines of before have come again, that is what was kept before: the
    /// body may be another one, or break off.
    pub(crate) fn keep(&mut self, progress: Progress) {
        if self.has_come_again {
            self.kept = Some(progress.shortened(KEPT_REJECTIONS));
        }
    }
}

fn digest(hash: &Sha256) -> [u8; 32] {
    hash.clone().finalize().into()
}

impl Drop for Guard {
    fn drop(&mut self) {
        let kept = match self.kept.take() {
            Some(progress) => Kept { progress, digest: digest(&self.reached), extent: self.extent },
            // It ended before it came further than before.
            None => std::mem::take(&mut self.before),
        };
        let mut entries = self.keys.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(self.id.clone(), Entry::Kept(kept, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(keys: &Arc<Keys>, key: &str) -> Box<Guard> {
        match keys.begin("client", "orders", key, Instant::now()) {
            Begin::Go(guard) => guard,
            other => panic!("{other:?}"),
        }
    }

    /// Sends lines; those up to `accepted` are accepted. Returns the numbers of the lines that were not skipped.
    fn send(keys: &Arc<Keys>, key: &str, lines: &[&str], accepted: u64) -> Result<Vec<u64>, OtherBody> {
        let mut guard = begin(keys, key);
        let mut progress = guard.before().clone();
        let mut new = Vec::new();
        for (number, line) in (1..).zip(lines) {
            let Some(mark) = guard.line(number, line.as_bytes())? else { continue };
            new.push(number);
            if number <= accepted {
                progress.accept(number);
                guard.reach(mark);
                guard.keep(progress.clone());
            }
        }
        guard.end()?;
        if accepted >= lines.len() as u64 {
            guard.complete();
            guard.keep(progress);
        }
        Ok(new)
    }

    #[test]
    fn a_repeat_skips_what_was_accepted() {
        let keys = Keys::new(Duration::from_secs(60), 10);
        assert_eq!(send(&keys, "k", &["a", "b", "c"], 2), Ok(vec![1, 2, 3]));
        assert_eq!(send(&keys, "k", &["a", "x", "c"], 3), Err(OtherBody));
        assert_eq!(send(&keys, "k", &["a"], 3), Err(OtherBody));
        assert_eq!(send(&keys, "other", &["a", "x", "c"], 3), Ok(vec![1, 2, 3]));
        assert_eq!(send(&keys, "k", &["a", "b", "c"], 3), Ok(vec![3]), "a refused repeat changes nothing");
        assert_eq!(send(&keys, "k", &["a", "b", "c"], 3), Ok(vec![]));
        assert_eq!(begin(&keys, "k").before().accepted, 3);
    }

    #[test]
    fn a_body_that_was_accepted_to_its_end_has_no_further_lines() {
        let keys = Keys::new(Duration::from_secs(60), 10);
        assert_eq!(send(&keys, "k", &["a"], 1), Ok(vec![1]));
        assert_eq!(send(&keys, "k", &["a", "b"], 2), Err(OtherBody));
        // A repeat that breaks off behind the last line leaves it so.
        let mut broken_off = begin(&keys, "k");
        assert!(broken_off.line(1, b"a").unwrap().is_none());
        broken_off.keep(broken_off.before().clone());
        drop(broken_off);
        assert_eq!(send(&keys, "k", &["a", "b"], 2), Err(OtherBody));
        assert_eq!(send(&keys, "k", &["a"], 1), Ok(vec![]));
        assert_eq!(send(&keys, "empty", &[], 0), Ok(vec![]));
        assert_eq!(send(&keys, "empty", &["a"], 1), Err(OtherBody));
        assert_eq!(send(&keys, "empty", &[], 0), Ok(vec![]));
    }

    #[test]
    fn a_repeat_that_does_not_come_as_far_changes_nothing() {
        let keys = Keys::new(Duration::from_secs(60), 10);
        assert_eq!(send(&keys, "k", &["a", "b", "c"], 3), Ok(vec![1, 2, 3]));
        // As `Ingest` does at the end of every request.
        let mut broken_off = begin(&keys, "k");
        assert!(broken_off.line(1, b"a").unwrap().is_none());
        broken_off.keep(broken_off.before().clone());
        drop(broken_off);
        let mut other = begin(&keys, "k");
        for (number, line) in (1..).zip(["a", "x"]) {
            assert!(other.line(number, line.as_bytes()).unwrap().is_none());
        }
        other.line(3, b"c").unwrap_err();
        other.keep(other.before().clone());
        drop(other);
        assert_eq!(send(&keys, "k", &["a", "x", "c"], 3), Err(OtherBody));
        assert_eq!(send(&keys, "k", &["a", "b", "c"], 3), Ok(vec![]));
    }

    #[test]
    fn keys_are_bounded_in_number_and_time() {
        let keys = Keys::new(Duration::from_secs(60), 2);
        let first = begin(&keys, "1");
        let begin_at = |key: &str, now: Instant| keys.begin("client", "orders", key, now);
        let now = Instant::now();
        assert!(matches!(begin_at("1", now), Begin::InUse));
        assert!(matches!(keys.begin("another", "orders", "1", now), Begin::Go(_)), "a key of another client");
        let second = begin(&keys, "2");
        assert!(matches!(begin_at("3", now), Begin::Full));
        drop(second);
        assert!(matches!(begin_at("3", now), Begin::Go(_)), "in place of the oldest");
        drop(first);
        assert_eq!(send(&keys, "k", &["a"], 1), Ok(vec![1]));
        let later = Instant::now() + Duration::from_secs(61);
        let Begin::Go(guard) = begin_at("k", later) else { panic!("it is not in use") };
        assert_eq!(guard.before().lines, 0, "it was forgotten");
    }
}
