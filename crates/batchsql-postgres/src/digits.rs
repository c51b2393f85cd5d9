//! Owns the digits of numbers and times in text that are cut off or rounded: how many are behind a point.
//! Must not know columns or types.

/// The texts between the brackets, commas and quotes of a JSON array or a PostgreSQL array. For elements without
/// escapes, such as numbers.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(['[', ']', '(', ')', '{', '}', ',', '"', '=']).map(str::trim).filter(|token| !token.is_empty())
}

/// Whether a time has more decimal digits of a second than this.
pub(crate) fn has_smaller_fraction(micros: i64, digits: u32) -> bool {
    digits < 6 && micros % 10_i64.pow(6 - digits) != 0
}

/// Whether some number in a text has more than six significant digits after its point.
pub(crate) fn has_long_fraction(text: &str) -> bool {
    has_fraction_beyond(text, 6)
}

/// Whether some number in a text has more significant digits than this after its point.
pub(crate) fn has_fraction_beyond(text: &str, digits: u32) -> bool {
    let mut parts = text.split('.');
    parts.next();
    parts.any(|part| {
        let after = part.bytes().take_while(u8::is_ascii_digit);
        after.skip(digits as usize).any(|digit| digit != b'0')
    })
}
