//! Owns what a browser may do with the live page: run the scripts that are in it, and ask this server.
//! Must not know what the page shows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The content security policy of a self-contained page. Scripts are named by their hashes, so that one that
/// comes in some other way, for example with the value of a label, does not run.
pub(crate) fn of_page(html: &str) -> String {
    let hashes: String =
        scripts(html).map(|script| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(script)))).collect();
    let scripts = if hashes.is_empty() { " 'none'" } else { &hashes };
    format!(
        "default-src 'none'; script-src{scripts}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// What stands between the tags.
fn scripts(html: &str) -> impl Iterator<Item = &str> {
    html.split("<script").skip(1).filter_map(|rest| Some(rest.split_once('>')?.1.split_once("</script>")?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_named_by_its_hash() {
        // openssl dgst -sha256 -binary | base64
        let policy = of_page("<script>alert(1)</script><p><script type=\"module\">\nlet a = 1 < 2;</script>");
        assert!(policy.contains("'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("script-src 'unsafe-inline'"), "{policy}");
    }

    #[test]
    fn a_page_without_scripts_runs_none() {
        assert!(of_page("<p>scripts</p>").contains("script-src 'none';"));
    }
}
