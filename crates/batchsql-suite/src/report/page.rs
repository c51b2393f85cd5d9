//! Owns the frame of a page that works from a file, without a network: the drawing library, the colours, the plots and
//! the data, joined in one file. Must not know the content of a page, which its script defines.
//!
//! The drawing library and the colours are those of the exporter's live page: links to its files, so that a package of this
//! crate has them.

use anyhow::Context as _;
use serde::Serialize;

const PAGE: &str = include_str!("assets/page.html");

/// Assets in the order of their placeholders in the page; the data comes last.
const ASSETS: [(&str, &str); 7] = [
    ("{{UPLOT_CSS}}", include_str!("assets/uPlot.min.css")),
    ("{{TOKENS_CSS}}", include_str!("assets/tokens.css")),
    ("{{PAGE_CSS}}", include_str!("assets/page.css")),
    ("{{UPLOT_LICENSE}}", include_str!("assets/uPlot-LICENSE")),
    ("{{UPLOT_JS}}", include_str!("assets/uPlot.iife.min.js")),
    ("{{ELEMENTS_JS}}", include_str!("assets/elements.js")),
    ("{{CURVES_JS}}", include_str!("assets/curves.js")),
];
const TITLE: &str = "{{TITLE}}";
const ELSEWHERE: &str = "{{ELSEWHERE}}";
const SCRIPT: &str = "{{PAGE_JS}}";
const DATA: &str = "{{DATA_JSON}}";

/// The parts that differ between pages. None of them comes from data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// The title until the script sets another one.
    pub(crate) title: &'static str,
    /// Markup that tells a reader without scripts where the data is.
    pub(crate) elsewhere: &'static str,
    /// The script that builds the content from the data.
    pub(crate) script: &'static str,
}

/// A page with its data.
///
/// # Errors
/// The data cannot be turned into JSON.
pub(crate) fn to_string(kind: &Kind, data: &impl Serialize) -> anyhow::Result<String> {
    let data = serde_json::to_string(data).context("cannot write the data of the page as JSON")?;
    let mut page = PAGE.to_owned();
    let own = [(TITLE, kind.title), (ELSEWHERE, kind.elsewhere), (SCRIPT, kind.script)];
    for (mark, asset) in own.into_iter().chain(ASSETS) {
        page = page.replacen(mark, asset.trim_end(), 1);
    }
    // Last, so that a placeholder inside the data is not replaced.
    Ok(page.replacen(DATA, &inert(&data), 1))
}

/// JSON that cannot end its script element or be parsed as markup. These characters occur in JSON
/// only inside strings, where an escape is equivalent.
fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + json.len() / 32);
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_in_the_frame_once() {
        let marks = ASSETS.iter().map(|(mark, _)| *mark).chain([TITLE, ELSEWHERE, SCRIPT, DATA]);
        let page = to_string(&Kind { title: "t", elsewhere: "e", script: "s" }, &()).unwrap();
        for mark in marks {
            assert_eq!(PAGE.matches(mark).count(), 1, "{mark}");
            assert!(!page.contains(mark), "{mark}");
        }
    }

    #[test]
    fn scripts_write_text_and_never_markup() {
        let scripts = concat!(
            include_str!("assets/elements.js"),
            include_str!("assets/curves.js"),
            include_str!("assets/report.js"),
            include_str!("assets/bench.js")
        );
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!scripts.contains(sink), "{sink}");
        }
    }
}
