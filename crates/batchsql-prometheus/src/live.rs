//! Owns the live page: one self-contained file that requests `/metrics` each second and draws its curves.
//! Must not know what is measured; the page reads the names from the scrape.
//!
//! # The live page
//! `GET /` shows the same as the Grafana dashboard and needs only a browser: rates, percentiles, buffer, outcomes,
//! memory, the log of a durable intake, and tests of the last 15 minutes, from the text that Prometheus scrapes. Nothing is stored, and nothing is
//! loaded from elsewhere. The page itself holds no data, so it is served without authentication. It requests the
//! figures with the token, or the user and the password, that the user enters; these stay in the memory of the page.
//!
//! | file in `assets/live` | owns |
//! |---|---|
//! | `head.html`, `body.html`, `page.css` | layout and style; colours shared with the suite's report are in `assets/tokens.css` |
//! | `parse.js` | the text format 0.0.4 |
//! | `history.js` | the last 15 minutes, and by which labels metrics are kept |
//! | `figures.js` | rates, quantiles, formatting of numbers |
//! | `panels.js` | the content of each panel, tile and table |
//! | `curves.js`, `table.js` | drawing, with [uPlot](https://github.com/leeoniya/uPlot) in `assets/uplot` |
//! | `poll.js` | requests: one at a time, slower when hidden, tokens and passwords, lost connections |
//! | `page.js` | controls and states |

/// The page. It has one script and one style; the content security policy names them by their hashes.
pub(crate) fn page() -> &'static str {
    concat!(
        include_str!("../assets/live/head.html"),
        "<style>\n",
        include_str!("../assets/uplot/uPlot.min.css"),
        include_str!("../assets/tokens.css"),
        include_str!("../assets/live/page.css"),
        "</style>\n",
        include_str!("../assets/live/body.html"),
        "<script>\n/*\n",
        include_str!("../assets/uplot/uPlot-LICENSE"),
        "*/\n",
        include_str!("../assets/uplot/uPlot.iife.min.js"),
        include_str!("../assets/live/parse.js"),
        include_str!("../assets/live/history.js"),
        include_str!("../assets/live/figures.js"),
        include_str!("../assets/live/panels.js"),
        include_str!("../assets/live/curves.js"),
        include_str!("../assets/live/table.js"),
        include_str!("../assets/live/poll.js"),
        include_str!("../assets/live/page.js"),
        "</script>\n</body>\n</html>\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_document_that_needs_nothing_else() {
        let page = page();
        for (tag, count) in [("<script>", 1), ("</script>", 1), ("<style>", 1), ("</style>", 1), ("</html>", 1)] {
            assert_eq!(page.matches(tag).count(), count, "{tag}");
        }
        assert!(page.starts_with("<!doctype html>"));
        assert!(page.contains("uPlot (v1.6.32)") && page.contains("The MIT License"));
        for way_out in ["src=", "@import", "url(", "XMLHttpRequest", "WebSocket", "sendBeacon", "rel=\"stylesheet\""] {
            assert!(!page.contains(way_out), "{way_out}");
        }
        assert_eq!(page.matches("fetch(").count(), 1, "the only request is for the metrics");
    }

    #[test]
    fn it_writes_text_and_never_markup_and_keeps_nothing() {
        let page = page();
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!page.contains(sink), "{sink}");
        }
        for store in ["localStorage", "sessionStorage", "indexedDB", "document.cookie"] {
            assert!(!page.contains(store), "{store}");
        }
    }
}
