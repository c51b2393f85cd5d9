//! Owns which parts of a JSON line may be stored as documents, whose text is kept as it was sent.
//! Must not know tables.

/// The deepest document. Databases have limits of their own, such as 100 in MySQL.
const MOST_DEPTH: usize = 127;

/// Why the text of a document is not stored, if it is not. It is known to be JSON in its form.
pub(crate) fn problem(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = end_of_string(bytes, at);
                let string = &text[at..end];
                if string.contains("\\u") && serde_json::from_str::<String>(string).is_err() {
                    return Some("a text in it has an escape that is half a character");
                }
                at = end;
                continue;
            }
            _ => {}
        }
        if depth > MOST_DEPTH {
            return Some("it is nested too deeply");
        }
        at += 1;
    }
    None
}

/// Behind the closing quote.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_database_takes_is_found() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        for sound in [
            "1e400",
            "null",
            r#"{"a": [1, "]]]]", "\\", "\"[", "\u00e9\ud83d\ude00"]}"#,
            &nested(127),
            &format!("[{}]", nested(100).repeat(3).replace("][", "],[")),
        ] {
            assert_eq!(problem(sound), None, "{sound}");
        }
        assert_eq!(problem(&nested(128)), Some("it is nested too deeply"));
        for half in [r#""\ud800""#, r#"{"\udc00": 1}"#, r#"["a", "\ud800x"]"#] {
            assert_eq!(problem(half), Some("a text in it has an escape that is half a character"), "{half}");
        }
    }
}
