//! Owns what a browser may do with the live page: run its own script and style, and request from this server.
//! Must not know what the page shows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The content security policy of a self-contained page. It names scripts and styles by their hashes, so an injected
/// one, for example in the value of a label, has no effect.
pub(crate) fn of_page(html: &str) -> String {
    let [scripts, styles] = ["script", "style"].map(|tag| hashes(html, tag));
    format!(
        "default-src 'none'; script-src{scripts}; style-src{styles}; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The hash of the text between each pair of tags.
fn hashes(html: &str, tag: &str) -> String {
    let (begin, end) = (format!("<{tag}"), format!("</{tag}>"));
    let contents = html.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once('>')?.1.split_once(&end)?.0));
    let hashes: String = contents.map(|text| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(text)))).collect();
    if hashes.is_empty() { " 'none'".to_owned() } else { hashes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_styles_are_named_by_their_hashes() {
        // openssl dgst -sha256 -binary | base64
        let policy = of_page("<script>alert(1)</script><p><script type=\"module\">\nlet a = 1 < 2;</script>");
        assert!(policy.contains("'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(policy.contains("style-src 'none';"), "{policy}");
        let policy = of_page("<style>p { color: red }</style><p>scripts and styles</p>");
        assert!(policy.contains("style-src 'sha256-") && policy.contains("script-src 'none';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
