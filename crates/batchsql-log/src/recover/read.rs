//! Owns reading the segments after an unclean end: which damage is loss, which is a torn tail, and where a segment ends.
//! Must not know what records mean.

use std::io;

use super::{Problem, Recoverer, Segment};
use crate::{
    format::{
        record::{self, Kind},
        segment,
    },
    recovery::Progress,
    scan::{Found, Scanner},
};

/// How often progress is reported.
const REPORT_BYTES: u64 = 1 << 20;
/// Where the first record starts.
const FIRST: u64 = segment::HEADER as u64;
/// Where its header ends.
const FIRST_ENDS: u64 = FIRST + record::HEADER as u64;

impl Recoverer<'_> {
    /// `ended`: all up to this serial was synced at the last clean close.
    pub(super) fn read_segments(&mut self, segments: &[Segment], ended: u64) -> Result<(), Problem> {
        let newest = segments.iter().rposition(|segment| segment.key.side.is_none());
        // What the newest segment says was synced: damage below it is loss, damage above it a torn tail. Its own start says
        // that all before it was synced; only its later records say that the start itself was.
        let synced = match newest {
            Some(newest) => self.max_synced(&segments[newest])?,
            None => 0,
        };
        let synced = synced.max(ended);
        for index in 0..segments.len() {
            let later = segments[index + 1..].iter().filter(|segment| segment.key.side.is_none());
            let superseded_from = later.filter_map(|segment| segment.base).filter(|&base| base <= synced).min();
            self.uncertain.push(Vec::new());
            self.read_segment(&segments[index], Limits { superseded_from, synced })?;
        }
        self.merge_uncertain();
        self.next_serial = self.next_serial.max(synced.saturating_add(1));
        Ok(())
    }

    fn max_synced(&self, segment: &Segment) -> io::Result<u64> {
        let file = self.open(segment)?;
        let mut scanner = Scanner::new(self.context(segment.key), segment::HEADER as u64, segment.length);
        let mut synced = segment.header.map_or(0, |header| header.base.saturating_sub(1));
        loop {
            match scanner.next(&*file, |_| false)? {
                Found::Record { header, .. } => synced = synced.max(header.synced),
                Found::Damage { .. } => {}
                Found::End => return Ok(synced),
            }
        }
    }

    fn read_segment(&mut self, segment: &Segment, limits: Limits) -> Result<(), Problem> {
        let is_side = segment.key.side.is_some();
        let file = self.open(segment)?;
        // Without a record it should continue where the segments before it end.
        let mut expected = segment.base.unwrap_or(self.next_serial);
        let mut scanner = Scanner::new(self.context(segment.key), segment::HEADER as u64, segment.length);
        let version = segment.header.map_or(segment::VERSION, |header| header.version);
        self.group_keys = None;
        self.catalog.files.entry(segment.key).or_default();
        if segment.length == 0 {
            return Ok(());
        }
        // From here on it is not known what is on disk.
        let mut certain = segment.length;
        if segment.header.is_none() {
            let length = segment.length.min(segment::HEADER as u64);
            match limits.judge(is_side, expected) {
                Verdict::Loss => self.damaged((segment, &*file), 0, length, None),
                // No crash leaves it so. Its records may have been acknowledged: they are written again.
                Verdict::Torn if !self.begins_as_header(&segment.name, segment.key)? => {
                    self.damaged((segment, &*file), 0, length, None);
                    certain = 0;
                }
                // The first group of the segment was never acknowledged, so nothing of it counts.
                Verdict::Torn | Verdict::Superseded => {
                    self.recovery.torn_bytes += segment.length;
                    self.count_to(segment, 0, 0);
                    return Ok(());
                }
            }
        }
        loop {
            let found = scanner.next(&*file, |_| true)?;
            self.progress(scanner.offset(), segment);
            match found {
                Found::End => break,
                Found::Record { header, offset } => {
                    if !is_side && header.serial < u64::MAX {
                        self.seen_serial = self.seen_serial.max(header.serial);
                    }
                    if !is_side && limits.superseded_from.is_some_and(|from| header.serial >= from) {
                        self.count_to(segment, offset, expected);
                        return Ok(());
                    }
                    let payload = scanner.payload(offset, &header);
                    let is_in_order = header.serial >= expected && header.serial < u64::MAX;
                    let is_certain = is_side || header.serial <= limits.synced;
                    if is_in_order && is_certain && header.kind == Kind::Snapshot {
                        self.newest_synced = Some(segment.key);
                    }
                    let is_known = is_in_order
                        && if is_certain {
                            self.apply((segment.key, version), &header, offset, payload).is_some()
                        } else {
                            certain = certain.min(offset);
                            self.write_again(version, &header, payload).is_some()
                        };
                    if is_known {
                        expected = header.serial + 1;
                    } else {
                        self.damaged((segment, &*file), offset, header.size(), None);
                    }
                }
                Found::Damage { offset, length, header } => match limits.judge(is_side, expected) {
                    Verdict::Superseded => {
                        self.count_to(segment, offset, expected);
                        return Ok(());
                    }
                    // The header of the first record is in one sector with that of the segment: something has overwritten it.
                    Verdict::Torn if offset == FIRST && header.is_none() && segment.length >= FIRST_ENDS => {
                        self.damaged((segment, &*file), offset, segment.length - offset, None);
                        certain = certain.min(offset);
                        break;
                    }
                    Verdict::Torn => {
                        self.recovery.torn_bytes += segment.length - offset;
                        certain = certain.min(offset);
                        break;
                    }
                    Verdict::Loss => {
                        let header = header.filter(|header| header.serial >= expected && header.serial < u64::MAX);
                        self.damaged((segment, &*file), offset, length, header);
                        expected = header.map_or(expected, |header| header.serial + 1);
                    }
                },
            }
        }
        self.count_to(segment, certain, expected.min(limits.synced.saturating_add(1)));
        Ok(())
    }

    /// The segment counts up to `length`. The rest is cut when what it had is synced elsewhere.
    fn count_to(&mut self, segment: &Segment, length: u64, next_serial: u64) {
        self.read_bytes += segment.length;
        self.lengths.insert(segment.key, segment.length);
        if segment.key.side.is_none() {
            self.next_serial = self.next_serial.max(next_serial);
        }
        if length < segment.length {
            self.tails.push((segment.key, length));
        }
        if length == 0 {
            self.catalog.remove_file(segment.key);
        } else {
            self.catalog.files.entry(segment.key).or_default().length = length;
        }
    }

    fn progress(&mut self, offset: u64, segment: &Segment) {
        let bytes = self.read_bytes + offset.min(segment.length);
        let is_due = bytes >= self.reported_bytes + REPORT_BYTES || bytes == self.total_bytes;
        if let (true, Some(callback)) = (is_due, &self.options.on_progress) {
            self.reported_bytes = bytes;
            callback(Progress { bytes, total_bytes: self.total_bytes });
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    /// From this serial on a later segment has the records, for certain.
    superseded_from: Option<u64>,
    /// All up to this serial was synced.
    synced: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Loss,
    Torn,
    Superseded,
}

impl Limits {
    /// What damage is where the record `serial` should be.
    fn judge(&self, is_side: bool, serial: u64) -> Verdict {
        match self.superseded_from {
            _ if is_side => Verdict::Loss,
            Some(from) if serial >= from => Verdict::Superseded,
            _ if serial > self.synced => Verdict::Torn,
            _ => Verdict::Loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_damage_is() {
        let check = |superseded_from, serial, expected| {
            let limits = Limits { superseded_from, synced: 10 };
            assert_eq!(limits.judge(false, serial), expected, "{limits:?} {serial}");
            assert_eq!(limits.judge(true, serial), Verdict::Loss);
        };
        check(None, 10, Verdict::Loss);
        check(None, 11, Verdict::Torn);
        check(Some(5), 4, Verdict::Loss);
        check(Some(5), 5, Verdict::Superseded);
    }
}
