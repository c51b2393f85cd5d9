//! `report.html`: one self-contained page that works from a file, without a network.
//! What is shown and how is decided in `assets/report.js`; must not know the frame of a page.

use super::model::Report;
use super::page::{self, Kind};

const KIND: Kind = Kind {
    title: "BatchSQL integration report",
    elsewhere: "The same data is in\n<code>report.json</code> beside this file.",
    script: include_str!("assets/report.js"),
};

/// The report as a page.
///
/// # Errors
/// None in practice; see [`json::to_string`](super::json::to_string).
pub fn to_string(report: &Report) -> anyhow::Result<String> {
    page::to_string(&KIND, report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// The data as a browser sees it: up to the first end of a script element.
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
            "{{DATA_JSON}} {{PAGE_JS}} {{UPLOT_CSS}}",
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
        assert!(page.contains("uPlot (v1.6.32)") && page.contains("The MIT License"));
        for way_out in ["src=", "@import", "url(", "fetch(", "XMLHttpRequest", "<link rel=\"stylesheet\""] {
            assert!(!page.contains(way_out), "{way_out}");
        }
        assert!(page.contains("default-src 'none'"));
    }
}
