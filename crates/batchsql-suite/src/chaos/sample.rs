//! Owns the counts of a writer at one moment, as a line that the conductor reads, and what follows from many of them.
//! Must not know where they come from.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use batchsql::Balance;
use serde::Serialize;

/// Milliseconds since 1970, which the conductor and the writers share.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Counts of a pipeline at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Sample {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    /// Rows that were accepted.
    pub(super) accepted: u64,
    /// Rows that were written, ignored or superseded.
    pub(super) written: u64,
    /// The others that have ended.
    pub(super) failed: u64,
    /// Partitions of killed and frozen workers that it has taken over, if it is a worker of a stream.
    #[serde(skip)]
    pub(super) takeovers: u64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}", self.at, self.accepted, self.written, self.failed, self.takeovers)
    }
}

impl Sample {
    /// What a pipeline has counted until now.
    pub(super) fn of(balance: &Balance) -> Self {
        let written = balance.written() + balance.ignored() + balance.superseded();
        Self { at: now(), accepted: balance.accepted, written, failed: balance.failed(), takeovers: 0 }
    }

    /// Reads what `Display` wrote.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split(' ').map(|word| word.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { at: next()?, accepted: next()?, written: next()?, failed: next()?, takeovers: next()? })
    }
}

/// The time of the first row that was written after `end`, of the writer that the samples are of.
pub(super) fn first_written_after(samples: &[Sample], end: u64) -> Option<u64> {
    let before = samples.iter().take_while(|sample| sample.at <= end).last().map_or(0, |sample| sample.written);
    samples.iter().find(|sample| sample.at > end && sample.written > before).map(|sample| sample.at)
}

/// The longest time in which no row was written, in milliseconds, over writers that follow each other, from `begin` on.
pub(super) fn longest_stall(writers: &[Vec<Sample>], begin: u64) -> u64 {
    let (mut last, mut longest) = (begin, 0);
    for samples in writers {
        let mut written = 0;
        for sample in samples {
            let goes_on = std::mem::replace(&mut written, sample.written) < sample.written;
            if sample.at > begin && goes_on {
                longest = longest.max(sample.at.saturating_sub(last));
                last = sample.at;
            }
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, written: u64) -> Sample {
        Sample { at, accepted: 9, written, failed: 1, takeovers: 2 }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        assert_eq!(Sample::parse(&sample(5, 3).to_string()), Some(sample(5, 3)));
        for wrong in ["", "1 2 3 4", "a b c d e"] {
            assert_eq!(Sample::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn recovery_is_the_first_row_after_the_fault() {
        let samples = [sample(10, 5), sample(20, 5), sample(30, 5), sample(40, 6)];
        assert_eq!(first_written_after(&samples, 25), Some(40));
        assert_eq!(first_written_after(&samples, 40), None);
        // Another writer counts from 0.
        assert_eq!(first_written_after(&samples, 5), Some(10));
        assert_eq!(first_written_after(&[], 5), None);
    }

    #[test]
    fn a_stall_goes_on_from_writer_to_writer() {
        let writers =
            [vec![sample(10, 5), sample(20, 6), sample(50, 7), sample(60, 7)], vec![sample(70, 0), sample(90, 1)]];
        assert_eq!(longest_stall(&writers, 0), 40);
        assert_eq!(longest_stall(&writers[..1], 15), 30);
        assert_eq!(longest_stall(&[], 15), 0);
    }
}
