//! Owns the text of bytes and of UUIDs: hexadecimal digits.
//! Must not know columns, rows or databases.

use std::fmt::Write;

/// What begins the text of bytes, as in PostgreSQL.
const PREFIX: &str = "\\x";

/// Bytes as text: `\x` and two digits for each.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    digits(PREFIX, bytes)
}

/// The bytes of a text of `\x` and two hexadecimal digits for each.
pub fn to_bytes(text: &str) -> Option<Vec<u8>> {
    parse(text.strip_prefix(PREFIX)?)
}

/// A UUID with hyphens.
pub(crate) fn of_uuid(id: &[u8; 16]) -> String {
    let digits = digits("", id);
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &digits[group]);
    groups.join("-")
}

/// The UUID of a text with hyphens at the usual places, or without any.
pub fn to_uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = match text.len() {
        32 => parse(text),
        36 => {
            let hyphens = text.bytes().enumerate().all(|(at, byte)| (byte == b'-') == matches!(at, 8 | 13 | 18 | 23));
            hyphens.then(|| parse(&text.replace('-', "")))?
        }
        _ => None,
    };
    bytes?.try_into().ok()
}

fn digits(prefix: &str, bytes: &[u8]) -> String {
    bytes.iter().fold(prefix.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn parse(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_they_are_written() {
        for bytes in [&b""[..], b"\x00\x7f\xff"] {
            assert_eq!(to_bytes(&of_bytes(bytes)).as_deref(), Some(bytes));
        }
        assert_eq!(of_bytes(b"\x00\xff"), "\\x00ff");
        for bad in ["", "00", "\\x0", "\\x0g", "\\xé"] {
            assert_eq!(to_bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn uuids_have_hyphens_at_their_places_or_none() {
        let id = std::array::from_fn(|at| at as u8 * 17);
        let text = of_uuid(&id);
        assert_eq!(text, "00112233-4455-6677-8899-aabbccddeeff");
        for good in [text.clone(), text.to_uppercase(), text.replace('-', "")] {
            assert_eq!(to_uuid(&good), Some(id), "{good}");
        }
        for bad in ["", "0011223-34455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-aabbccddeefg"] {
            assert_eq!(to_uuid(bad), None, "{bad}");
        }
    }
}
