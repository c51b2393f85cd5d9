//! Owns the names of files in a log's folder.
//! Must not know what is in the files.

use crate::model::{FileKey, Stream};

/// The file that exactly one process locks.
pub(crate) const LOCK: &str = "LOCK";
/// The identity of the folder.
pub(crate) const IDENTITY: &str = "IDENTITY";
/// What the last clean close had.
pub(crate) const END: &str = "END";
/// The folder of damaged bytes.
pub(crate) const QUARANTINE: &str = "quarantine";
/// The end of the names of files that are not complete.
pub(crate) const TEMPORARY: &str = ".tmp";

pub(crate) fn segment(key: FileKey) -> String {
    match key.side {
        None => format!("{:020}.seg", key.number),
        Some(Stream { table, partition }) => format!("side-{:020}-{table}-{partition}.seg", key.number),
    }
}

/// The segment that a file of this name would be.
pub(crate) fn parse(name: &str) -> Option<FileKey> {
    let stem = name.strip_suffix(".seg")?;
    let key = match stem.strip_prefix("side-") {
        None => FileKey { number: stem.parse().ok()?, side: None },
        Some(stem) => {
            let mut parts = stem.split('-');
            let number = parts.next()?.parse().ok()?;
            let stream = Stream { table: parts.next()?.parse().ok()?, partition: parts.next()?.parse().ok()? };
            FileKey { number, side: Some(stream) }
        }
    };
    // Only the spelling of `segment`: no sign, no missing zero.
    (segment(key) == name).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_refused() {
        for key in [
            FileKey { number: 1, side: None },
            FileKey { number: u64::MAX, side: Some(Stream { table: 4, partition: 7 }) },
        ] {
            assert_eq!(parse(&segment(key)), Some(key));
        }
        for name in
            ["1.seg", "+0000000000000000001.seg", "a.seg", "00000000000000000001.seg.tmp", "side-1-2-3.seg", "LOCK"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
