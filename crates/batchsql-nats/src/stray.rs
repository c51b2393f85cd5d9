//! Owns messages of subjects that are of no partition: how many there are, and which subjects were named in the log.
//! Must not know connections.

use std::collections::BTreeSet;

/// Subjects that are named at once.
const NAMED: usize = 10;
/// Subjects that one worker names in its log.
const WARNED: usize = 20;

/// Messages that a stream takes and no worker reads, because their subject is of no partition: its number is not below the
/// number of partitions, or is no number, or the name of the table cannot be read. They stay in the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StrayMessages {
    /// How many there are.
    pub messages: u64,
    /// How many subjects they have.
    pub subjects: u64,
    /// The first ten of these subjects, by name.
    pub named: BTreeSet<String>,
}

impl StrayMessages {
    pub(crate) fn add(&mut self, subject: String, messages: u64) {
        self.messages += messages;
        self.subjects += 1;
        self.named.insert(subject);
        if self.named.len() > NAMED {
            self.named.pop_last();
        }
    }
}

/// What was found last, and what was said about it.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    found: StrayMessages,
    warned: BTreeSet<String>,
}

impl Strays {
    pub(crate) fn found(&self) -> StrayMessages {
        self.found.clone()
    }

    /// Takes what was found now, and returns the subjects that are to be named in the log: each once, and not more than a bounded
    /// number of them.
    pub(crate) fn take(&mut self, found: StrayMessages) -> Vec<String> {
        let new: Vec<String> = found.named.difference(&self.warned).cloned().collect();
        let left = WARNED - self.warned.len();
        let new: Vec<String> = new.into_iter().take(left).collect();
        self.warned.extend(new.iter().cloned());
        self.found = found;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(subjects: std::ops::Range<u64>) -> StrayMessages {
        let mut found = StrayMessages::default();
        subjects.for_each(|number| found.add(format!("rows.t.{number:03}"), 2));
        found
    }

    #[test]
    fn subjects_are_counted_and_some_are_named() {
        let found = found(0..500);
        assert_eq!((found.messages, found.subjects, found.named.len()), (1_000, 500, NAMED));
        assert_eq!(found.named.last().map(String::as_str), Some("rows.t.009"));
    }

    #[test]
    fn each_subject_is_said_once_and_only_some_of_many() {
        let mut strays = Strays::default();
        assert_eq!(strays.take(found(3..5)), ["rows.t.003", "rows.t.004"]);
        assert_eq!(strays.take(found(3..6)), ["rows.t.005"]);
        assert!(strays.take(found(0..0)).is_empty() && strays.take(found(3..6)).is_empty());
        let more: usize = (10..50).map(|first| strays.take(found(first..first + 5)).len()).sum();
        assert_eq!(more, WARNED - 3);
        assert_eq!(strays.found().messages, 10);
    }
}
