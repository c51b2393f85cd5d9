//! Owns the hash of schemas and of long names, which is part of the format.
//! Must not know what is hashed.

/// FNV-1a with 64 bits, as hexadecimal digits.
pub(crate) fn hash_text(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}
