//! `report.html`: one self-contained page that works from a file, without a network.
//! Only joins the assets with the data; what is shown and how is decided in `assets/`. The drawing library and the
//! colours are those of the exporter's live page.

use anyhow::Context as _;

use super::model::Report;

const PAGE: &str = include_str!("assets/report.html");

/// Assets in the order of their marks in the page; the data comes last.
const ASSETS: [(&str, &str); 7] = [
    ("{{UPLOT_CSS}}", include_str!("../../../batchsql-prometheus/assets/uplot/uPlot.min.css")),
    ("{{TOKENS_CSS}}", include_str!("../../../batchsql-prometheus/assets/tokens.css")),
    ("{{REPORT_CSS}}", include_str!("assets/report.css")),
    ("{{UPLOT_LICENSE}}", include_str!("../../../batchsql-prometheus/assets/uplot/uPlot-LICENSE")),
    ("{{UPLOT_JS}}", include_str!("../../../batchsql-prometheus/assets/uplot/uPlot.iife.min.js")),
    ("{{CURVES_JS}}", include_str!("assets/curves.js")),
    ("{{REPORT_JS}}", include_str!("assets/report.js")),
];
const DATA: &str = "{{REPORT_JSON}}";

/// The report as a page.
///
/// # Errors
/// None in practice; see [`json::to_string`](super::json::to_string).
pub fn to_string(report: &Report) -> anyhow::Result<String> {
    let data = serde_json::to_string(report).context("cannot turn the report into JSON")?;
    let mut page = PAGE.to_owned();
    for (mark, asset) in ASSETS {
        page = page.replacen(mark, asset.trim_end(), 1);
    }
    // Last, so that a mark inside the data is left alone.
    Ok(page.replacen(DATA, &inert(&data), 1))
}

/// JSON that cannot end its script element nor be taken for markup. These characters occur in JSON
/// only inside strings, where an escape means the same.
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
    use crate::report::sample;

    /// What a browser takes for the data: up to the first end of a script element.
    fn data(page: &str) -> &str {
        let (_, rest) = page.split_once(r#"<script type="application/json" id="report-data">"#).unwrap();
        rest.split_once("</script").unwrap().0
    }

    #[test]
    fn hostile_strings_cannot_break_out() {
        for hostile in [
            sample::HOSTILE,
            "<!--<script>",
            "]]>&lt;/script&gt;",
            "line\u{2028}paragraph\u{2029}end",
            "{{REPORT_JSON}} {{REPORT_JS}} {{UPLOT_CSS}}",
            "quote\" back\\slash \u{0} \u{7f}",
        ] {
            let mut report = sample::report();
            report.generated_at = hostile.to_owned();
            report.environment.os = hostile.to_owned();
            report.config.cases.push(hostile.to_owned());
            let case = &mut report.results[0];
            case.result.test_name = hostile.to_owned();
            case.result.database = hostile.to_owned();
            case.result.errors = vec![hostile.to_owned()];
            case.parameters.insert(hostile.to_owned(), hostile.to_owned());
            case.balance.insert(hostile.to_owned(), 1);

            let page = to_string(&report).unwrap();
            let embedded = data(&page);
            assert!(!embedded.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{hostile:?}");
            assert!(serde_json::from_str::<Report>(embedded).unwrap() == report, "{hostile:?}");
            assert!(!page.contains("<img"), "{hostile:?}");
            let plain = to_string(&sample::report()).unwrap();
            assert_eq!(page.matches("</script").count(), plain.matches("</script").count(), "{hostile:?}");
        }
    }

    #[test]
    fn the_page_is_complete_and_needs_no_network() {
        let page = to_string(&Report::default()).unwrap();
        for mark in ASSETS.iter().map(|(mark, _)| *mark).chain([DATA]) {
            assert_eq!(PAGE.matches(mark).count(), 1, "{mark}");
            assert!(!page.contains(mark), "{mark}");
        }
        assert!(page.contains("uPlot (v1.6.32)") && page.contains("The MIT License"));
        for way_out in ["src=", "@import", "url(", "fetch(", "XMLHttpRequest", "<link rel=\"stylesheet\""] {
            assert!(!page.contains(way_out), "{way_out}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn the_script_writes_text_and_never_markup() {
        let script = concat!(include_str!("assets/report.js"), include_str!("assets/curves.js"));
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!script.contains(sink), "{sink}");
        }
    }
}
