//! Owns which written messages of a partition are kept, and which are due to be removed. Pure: it is given the time.
//! Must not know the stream.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Messages that were written.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// What was settled when, while it is kept.
    marks: VecDeque<(Instant, u64)>,
    trimmed: u64,
}

impl Kept {
    /// Below which message may be removed, if that is more than before. The settled message itself stays.
    pub(crate) fn due(&mut self, now: Instant, keep_for: Duration, settled: u64) -> Option<u64> {
        // A hundred marks, however long messages are kept.
        let is_new = self.marks.back().is_none_or(|(time, mark)| *mark < settled && now - *time >= keep_for / 100);
        if is_new && settled > self.trimmed {
            self.marks.push_back((now, settled));
        }
        let mut below = None;
        while let Some((time, mark)) = self.marks.front()
            && now - *time >= keep_for
        {
            below = Some(*mark);
            self.marks.pop_front();
        }
        below.filter(|below| *below > self.trimmed)
    }

    /// Messages below this one were removed.
    pub(crate) fn is_removed(&mut self, below: u64) {
        self.trimmed = below;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_are_removed_when_they_were_kept_long_enough() {
        let (mut kept, keep) = (Kept::default(), Duration::from_secs(100));
        assert_eq!(kept.due(Instant::now(), keep, 0), None);
        assert_eq!(kept.due(Instant::now(), keep, 5), None);
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(kept.due(Instant::now(), keep, 9), None);
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(kept.due(Instant::now(), keep, 9), Some(5));
        kept.is_removed(5);
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(kept.due(Instant::now(), keep, 9), Some(9));
        kept.is_removed(9);
        tokio::time::advance(Duration::from_secs(500)).await;
        assert_eq!(kept.due(Instant::now(), keep, 9), None);
        // Without a time to keep them, at once.
        assert_eq!(kept.due(Instant::now(), Duration::ZERO, 12), Some(12));
    }
}
