//! Owns which warnings of files that are tried again and again are said: each at once, and the same one at most every five minutes.
//! Must not know why a file is not loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the same warning of a file is not said again.
const AGAIN: Duration = Duration::from_secs(300);

/// What was said of each file, and when.
#[derive(Debug, Default)]
pub(super) struct SaidFiles(HashMap<PathBuf, (String, Instant)>);

impl SaidFiles {
    /// A file is not loaded now.
    pub(super) fn not_loaded(&mut self, source: &str, path: &Path, text: &str) {
        let file = path.display();
        if self.is_due(path, text, Instant::now()) {
            tracing::warn!(source, %file, "not loaded, trying again: {text}");
        } else {
            tracing::debug!(source, %file, "not loaded, trying again: {text}");
        }
    }

    /// Whether a warning is another one, apart from its numbers, or was said long ago.
    fn is_due(&mut self, path: &Path, text: &str, now: Instant) -> bool {
        let text: String = text.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        match self.0.get_mut(path) {
            Some((said, at)) if *said == text && now.duration_since(*at) < AGAIN => false,
            _ => {
                self.0.insert(path.to_owned(), (text, now));
                true
            }
        }
    }

    /// Forgets files that are loaded or gone: these are the others.
    pub(super) fn retain(&mut self, is_left: impl Fn(&Path) -> bool) {
        self.0.retain(|path, _| is_left(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_warning_is_said_again_after_a_while() {
        let (mut said, begin, a) = (SaidFiles::default(), Instant::now(), Path::new("a.csv"));
        assert!(said.is_due(a, "locked after 5 tries", begin));
        assert!(!said.is_due(a, "locked after 17 tries", begin + AGAIN / 2));
        assert!(said.is_due(Path::new("b.csv"), "locked after 5 tries", begin));
        assert!(said.is_due(a, "locked after 18 tries", begin + AGAIN));
        assert!(said.is_due(a, "there is no table", begin + AGAIN));
        said.retain(|path| path != a);
        assert!(said.is_due(a, "there is no table", begin + AGAIN));
        assert!(!said.is_due(Path::new("b.csv"), "locked after 5 tries", begin));
    }
}
