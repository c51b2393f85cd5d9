//! Owns how text comes into the page: escaped, with what is between backticks as code.
//! Must not know what it is about.

use serde_json::Value;

/// The text, also within an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// As [`escape`], with code.
pub(super) fn prose(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    let is_odd = parts.len().is_multiple_of(2);
    let part = |(number, part): (usize, &&str)| match escape(part) {
        // One without an end is a backtick.
        part if is_odd && number + 1 == parts.len() => format!("`{part}"),
        part if number % 2 == 1 => format!("<code>{part}</code>"),
        part => part,
    };
    parts.iter().enumerate().map(part).collect()
}

/// A paragraph of a field of the document; empty if it is not there.
pub(super) fn paragraph(of: &Value, field: &str) -> String {
    of[field].as_str().map(|text| format!("<p>{}</p>", prose(text))).unwrap_or_default()
}

/// A word of the shell that means this text.
pub(super) fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape(r#"<a href="x">'&'"#), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;");
        assert_eq!(prose("with `wait=<x>`, or `y`"), "with <code>wait=&lt;x&gt;</code>, or <code>y</code>");
        assert_eq!(prose("a ` b"), "a ` b");
        assert_eq!(prose("`a` ` b"), "<code>a</code> ` b");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }
}
