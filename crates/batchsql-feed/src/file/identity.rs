//! Owns which file a file is: by its content, so that a copy, a move and appended lines change nothing.
//! Must not know lines, positions or databases.
//!
//! A file is named by its first line. Two files with the same first line are distinguished by the bytes before the last line that was
//! settled: a file that was replaced, or truncated and written anew, has other bytes there, or ends before.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// So many bytes of a longer first line are its name.
const FIRST: u64 = 64 << 10;

/// So many bytes before a place are compared.
const BEFORE: u64 = 64 << 10;

/// FNV-1a with 128 bits. It is stored, so it must stay the same.
fn fingerprint(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// The fingerprint of the first line. `None`: the line has no end yet.
pub(super) fn of_first_line(file: &mut File) -> io::Result<Option<u128>> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(FIRST).read_to_end(&mut bytes)?;
    Ok(match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => Some(fingerprint(&bytes[..=end])),
        None => (bytes.len() as u64 == FIRST).then(|| fingerprint(&bytes)),
    })
}

/// The fingerprint of the bytes before a place. `None`: the file ends before.
pub(super) fn of_bytes_before(file: &mut File, offset: u64) -> io::Result<Option<u128>> {
    let length = offset.min(BEFORE);
    file.seek(SeekFrom::Start(offset - length))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 == length).then(|| fingerprint(&bytes)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn fingerprints_are_those_of_the_standard() {
        assert_eq!(fingerprint(b""), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(fingerprint(b"a"), 0xd228cb696f1a8caf78912b704e4a8964);
    }

    #[test]
    fn a_file_is_named_by_its_first_line() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(of_first_line(&mut file).unwrap(), None);
        file.write_all(b"{\"id\":1}").unwrap();
        assert_eq!(of_first_line(&mut file).unwrap(), None, "it may go on");
        file.write_all(b"\n").unwrap();
        let name = of_first_line(&mut file).unwrap();
        assert!(name.is_some());
        file.write_all(b"{\"id\":2}\n").unwrap();
        assert_eq!(of_first_line(&mut file).unwrap(), name);
        // A long line is named by its beginning.
        let mut long = tempfile::tempfile().unwrap();
        long.write_all(&vec![b'x'; FIRST as usize]).unwrap();
        let name = of_first_line(&mut long).unwrap();
        assert!(name.is_some());
        long.write_all(b"y\n").unwrap();
        assert_eq!(of_first_line(&mut long).unwrap(), name);
    }

    #[test]
    fn the_bytes_before_a_place_show_whether_it_is_the_same_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        let before = of_bytes_before(&mut file, 8).unwrap();
        assert!(before.is_some() && of_bytes_before(&mut file, 9).unwrap().is_none());
        file.write_all(b"three\n").unwrap();
        assert_eq!(of_bytes_before(&mut file, 8).unwrap(), before);
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(b"one\nTWO\n").unwrap();
        assert_ne!(of_bytes_before(&mut other, 8).unwrap(), before);
        assert!(of_bytes_before(&mut other, 0).unwrap().is_some());
    }
}
