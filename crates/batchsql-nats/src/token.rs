//! Owns how a text is written where only letters, digits, `_` and `-` may stand: escaped, or as a hash.
//! Must not know what the text is.

use std::fmt::Write as _;

pub(crate) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Percent-encodes everything that is not a letter, a digit, `_` or `-`.
pub(crate) fn escape(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// The reverse of [`escape`]; `None` for a text that it does not write.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| match byte? {
                    digit @ b'0'..=b'9' => Some(digit - b'0'),
                    digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
                    _ => None,
                };
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                let byte = high * 16 + low;
                if is_plain(byte) {
                    return None;
                }
                bytes.push(byte);
            }
            plain if is_plain(plain) => bytes.push(plain),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

/// FNV-1a with 64 bits, as hexadecimal digits.
pub(crate) fn hash_text(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}
