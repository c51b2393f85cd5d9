//! Owns the warnings about lines of standard input that are no rows: some with their reason, then how many more there were.
//! Must not know what a row is.

use std::time::{Duration, Instant};

/// Lines are counted this long before others are said again.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines that are said with their reason in this time.
const SAID: u32 = 20;

/// The number of those that were not said is said when it is dropped.
#[derive(Debug)]
pub(super) struct RefusedLines<'a> {
    source: &'a str,
    window: Window,
}

impl<'a> RefusedLines<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self { source, window: Window::default() }
    }

    /// A line with this number, if it is known, was refused.
    pub(super) fn add(&mut self, line: Option<u64>, reason: &str, now: Instant) {
        let Told { before, is_said } = self.window.add(now);
        self.say(before);
        if is_said {
            tracing::warn!(source = self.source, line, reason, "a line is not a valid row; it is left out");
        }
    }

    /// Says how many were not said yet.
    pub(super) fn end(&mut self) {
        let unsaid = std::mem::take(&mut self.window.unsaid);
        self.say(unsaid);
    }

    fn say(&self, lines: u64) {
        if lines > 0 {
            tracing::warn!(source = self.source, lines, "more lines were not valid rows; they are left out");
        }
    }
}

impl Drop for RefusedLines<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// What follows from one more line.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// So many before it were not said yet, and are said now.
    before: u64,
    is_said: bool,
}

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Window {
    fn add(&mut self, now: Instant) -> Told {
        let mut before = 0;
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            before = std::mem::take(&mut self.unsaid);
            (self.since, self.said) = (Some(now), 0);
        }
        let is_said = self.said < SAID;
        if is_said {
            self.said += 1;
        } else {
            self.unsaid += 1;
        }
        Told { before, is_said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_many_lines_are_counted() {
        let (mut window, begin) = (Window::default(), Instant::now());
        for _ in 0..SAID {
            assert_eq!(window.add(begin), Told { before: 0, is_said: true });
        }
        for _ in 0..1000 {
            assert_eq!(window.add(begin), Told { before: 0, is_said: false });
        }
        assert_eq!(window.add(begin + WINDOW), Told { before: 1000, is_said: true });
        assert_eq!((window.said, window.unsaid), (1, 0));
    }
}
