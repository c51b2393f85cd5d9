//! Owns the hash that assigns keys to partitions, which is part of the format.
//! Must not know tables, rows or files.

/// The name of the hash in the identity file.
pub(crate) const HASH: &str = "fnv1a64-fold32";

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The partition of a key: FNV-1a with 64 bits over its bytes, both halves xor-ed, modulo the number of partitions.
///
/// The algorithm never changes for a folder: its name and the number of partitions are in the identity file. `FORMAT.md`
/// has test vectors. The same key gives the same partition in every version of Rust and on every machine.
///
/// # Panics
///
/// With zero partitions.
///
/// ```
/// assert_eq!(batchsql_log::partition_of(b"customer-1", 8), 4);
/// ```
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0, "a log has at least one partition");
    let hash = fnv1a64(key);
    let folded = (hash >> 32) as u32 ^ hash as u32;
    folded % partitions
}

fn fnv1a64(key: &[u8]) -> u64 {
    key.iter().fold(OFFSET, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the authors of FNV.
    #[test]
    fn the_hash_is_fnv1a64() {
        for (key, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("b", 0xaf63_df4c_8601_f1a5),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(fnv1a64(key.as_bytes()), hash, "{key}");
        }
    }

    /// The vectors of `FORMAT.md`: a change would write rows of a key to two partitions.
    #[test]
    fn partitions_never_change() {
        for (key, of_8, of_12) in [
            (&b""[..], 1, 5),
            (b"a", 0, 4),
            (b"foobar", 1, 1),
            (b"customer-1", 4, 4),
            (b"customer-2", 1, 9),
            (&1_u64.to_le_bytes(), 5, 1),
        ] {
            assert_eq!((partition_of(key, 8), partition_of(key, 12)), (of_8, of_12), "{key:?}");
        }
    }

    #[test]
    fn keys_are_spread() {
        let mut counts = [0_u32; 8];
        (0_u32..8_000).for_each(|key| counts[partition_of(&key.to_le_bytes(), 8) as usize] += 1);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
