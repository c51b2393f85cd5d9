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
    /// How many more there were when that was said last.
    more: u64,
}

/// What is to be said about them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NewStrays {
    /// Subjects to be named.
    pub(crate) named: Vec<String>,
    /// How many have never been named, if that is to be said.
    pub(crate) more: Option<u64>,
}

impl Strays {
    pub(crate) fn found(&self) -> StrayMessages {
        self.found.clone()
    }

    /// Whether the subject was named in the log.
    pub(crate) fn has_named(&self, subject: &str) -> bool {
        self.warned.contains(subject)
    }

    /// Takes what was found now, of which so many subjects are not [named](Self::has_named). Returns the subjects that are to be named
    /// in the log: each once, and not more than a bounded number of them; and how many more there are, if they are twice as many as when
    /// that was said last.
    pub(crate) fn take(&mut self, found: StrayMessages, unnamed: u64) -> NewStrays {
        let new = found.named.difference(&self.warned).cloned();
        let named: Vec<String> = new.take(WARNED - self.warned.len()).collect();
        self.warned.extend(named.iter().cloned());
        self.found = found;
        let more = unnamed - named.len() as u64;
        let is_said = more > 0 && more >= 2 * self.more;
        if is_said {
            self.more = more;
        }
        NewStrays { named, more: is_said.then_some(more) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(subjects: std::ops::Range<u64>) -> StrayMessages {
        let mut found = StrayMessages::default();
        subjects.for_each(|number| found.add(subject(number), 2));
        found
    }

    fn subject(number: u64) -> String {
        format!("rows.t.{number:03}")
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
        let mut take = |subjects: std::ops::Range<u64>| {
            let unnamed = subjects.clone().filter(|number| !strays.has_named(&subject(*number))).count();
            let NewStrays { named, more } = strays.take(found(subjects), unnamed as u64);
            (named.len(), more)
        };
        assert_eq!((take(3..5), take(3..6), take(0..0), take(3..6)), ((2, None), (1, None), (0, None), (0, None)));
        assert_eq!((take(0..200), take(0..200), take(0..300)), ((7, Some(190)), (0, None), (0, None)));
        // They have doubled.
        assert_eq!((take(0..390), take(500..520), take(500..520)), ((0, Some(380)), (10, None), (0, None)));
        assert_eq!(take(700..2_000), (0, Some(1_300)), "no more than {WARNED} are named");
        assert_eq!(strays.found().messages, 2_600);
    }
}
