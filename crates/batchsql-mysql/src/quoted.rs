//! Owns texts and bytes as SQL literals that mean the same in every `sql_mode` that a session may have here.
//! Must not know rows or tables.
//!
//! In utf8mb4 (see `checks`): a text with a backslash is written as the bytes of its UTF-8, a quote in a text is doubled,
//! and no other character is special.

pub(crate) fn push_quoted(sql: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    sql.push(b'\'');
    write(sql);
    sql.push(b'\'');
}

/// A text as a literal.
pub(crate) fn text(text: &str) -> String {
    let mut sql = Vec::new();
    push_text(&mut sql, text);
    String::from_utf8(sql).expect("a text is UTF-8, and what is around it is ASCII")
}

pub(crate) fn push_text(sql: &mut Vec<u8>, text: &str) {
    if text.contains('\\') {
        sql.extend_from_slice(b"_utf8mb4 ");
        return push_bytes(sql, text.as_bytes());
    }
    push_quoted(sql, |sql| {
        for (number, part) in text.split('\'').enumerate() {
            if number > 0 {
                sql.extend_from_slice(b"''");
            }
            sql.extend_from_slice(part.as_bytes());
        }
    });
}

pub(crate) fn push_bytes(sql: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    sql.push(b'X');
    push_quoted(sql, |sql| {
        for byte in bytes {
            sql.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_where_they_should_in_every_mode() {
        let check = |value: &str, expected: &str| assert_eq!(text(value), expected);
        check("", "''");
        check("a\"b`c;--\n\0日本", "'a\"b`c;--\n\0日本'");
        check("it's '", "'it''s '''");
        check("\\", "_utf8mb4 X'5c'");
        check("\\'", "_utf8mb4 X'5c27'");
    }
}
