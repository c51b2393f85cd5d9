//! Owns the checks of the appearance: themes, contrast, the width of a phone, and output for screen readers.
//! Must not know figures.

use std::time::Duration;

use batchsql_core::MetricsReporter;
use batchsql_prometheus::{MemoryUsage, PrometheusMetrics, TestResult};
use serde_json::json;

use crate::browser::{Browser, Eyes, with_browser};
use crate::exporter::{Pipeline, feed_state, log_state, small};
use crate::section::wait_for_ticks;

/// A page with every element, and with long names.
async fn full(browser: &Browser) -> (PrometheusMetrics, Pipeline) {
    let metrics = PrometheusMetrics::new().unwrap();
    let mut pipeline = Pipeline::start(&metrics, "postgres", small());
    let address = metrics.start_server(0).await.unwrap();
    browser.open(&format!("http://{address}/")).await;
    browser.wait("batchsqlLive.page.history.tick > 0").await;
    let long = "a_test_case_with_a_name_that_is_longer_than_any_telephone_is_wide_0123456789";
    for case in ["short", long] {
        metrics.set_current_test_case(case);
        pipeline.write(&format!("table_{case}"), 100).await;
        metrics.record_real_time_metrics("postgres", case, 1_000.0, 64.0);
        metrics.record_memory("postgres", case, &MemoryUsage { alloc: Some(1 << 24), ..Default::default() });
        let result = TestResult { duration: Duration::from_secs(3), data_integrity_rate: 99.5, ..Default::default() };
        metrics.record_test_result("postgres", case, &result);
    }
    let reporter = metrics.reporter("postgres");
    reporter.durable_gauges(&log_state(900, 800, &[&format!("table_{long}"), "orders"]));
    reporter.durable_synced(Duration::from_millis(2));
    reporter.feed_gauges(&feed_state(800, &[&format!("table_{long}"), "orders"]));
    browser.wait("document.querySelectorAll('#cases tbody tr').length === 2").await;
    browser.wait("document.getElementById('durable').checkVisibility()").await;
    browser.wait("document.getElementById('fed').checkVisibility()").await;
    wait_for_ticks(browser, 2).await;
    (metrics, pipeline)
}

/// The texts and lines whose contrast with their background is too low: below 4.5 for texts, 3 for lines.
const PALE: &str = "
    const numbers = (color) => { const parts = color.match(/[\\d.]+/g).map(Number); return [...parts.slice(0, 3), parts.length > 3 ? parts[3] : 1]; };
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
    const behind = (node) => { for (let at = node; at; at = at.parentElement) { const color = numbers(getComputedStyle(at).backgroundColor); if (color[3] === 1) return color; } throw new Error('no ground'); };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let seen = 0;
    for (let text; (text = walker.nextNode());) {
        const node = text.parentElement;
        if (text.data.trim() === '' || !node.checkVisibility() || ['SCRIPT', 'OPTION'].includes(node.tagName)) continue;
        seen += 1;
        const value = contrast(numbers(getComputedStyle(node).color), behind(node));
        if (value < 4.5) found.push([text.data.trim(), value]);
    }
    const style = getComputedStyle(document.documentElement);
    const hex = (name) => { const text = style.getPropertyValue('--' + name).trim(); return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)); };
    for (const name of ['s0', 's1', 's2', 's3', 's4', 's5', 's6', 's7', 'rest', 'passed', 'failed']) {
        const value = contrast(hex(name), hex('card'));
        if (!(value >= 3)) found.push([name, value]);
    }
    return { seen, found };";

async fn check_contrast(browser: &Browser) {
    let pale = browser.run(PALE, &[]).await;
    assert!(pale["seen"].as_u64().unwrap() > 80, "{pale}");
    assert_eq!(pale["found"], json!([]));
}

#[tokio::test]
async fn the_theme_follows_the_reader_and_the_switch() {
    for dark in [false, true] {
        with_browser(Eyes { dark, phone: false }, |browser| async move {
            let _full = full(&browser).await;
            let ground = "getComputedStyle(document.body).backgroundColor";
            let (bright, night) = ("rgb(243, 245, 247)", "rgb(15, 18, 20)");
            assert_eq!(browser.eval(ground).await, if dark { night } else { bright });
            check_contrast(&browser).await;
            browser.click("#theme").await;
            assert_eq!(browser.eval(ground).await, if dark { bright } else { night });
            assert_eq!(browser.text("#theme").await, if dark { "Dark" } else { "Light" });
            check_contrast(&browser).await;
            browser.close().await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_phone_shows_everything_without_scrolling_sideways() {
    with_browser(Eyes { phone: true, dark: true }, |browser| async move {
        let _full = full(&browser).await;
        assert_eq!(browser.eval("[innerWidth, document.documentElement.scrollWidth]").await, json!([360, 360]));
        let outside = "[...document.querySelectorAll('body *')].filter((node) => node.checkVisibility() && !node.closest('.skip, .hidden, legend, thead')
            && (node.getBoundingClientRect().right > 360.5 || node.getBoundingClientRect().left < -0.5)
            && getComputedStyle(node).position !== 'absolute').map((node) => node.outerHTML.slice(0, 120))";
        assert_eq!(browser.eval(outside).await, json!([]));
        let small = "[...document.querySelectorAll('.controls button, .controls select, .segments span')].filter((node) => node.checkVisibility() && node.getBoundingClientRect().height < 38).length";
        assert_eq!(browser.eval(small).await, 0, "controls are too small for touch");
        let tiny = "[...document.querySelectorAll('main *')].filter((node) => node.checkVisibility() && node.textContent.trim() && parseFloat(getComputedStyle(node).fontSize) < 12).length";
        assert_eq!(browser.eval(tiny).await, 0, "text is too small");
        // Also with the longer words.
        let rows = "new Set(['window', 'pause', 'theme'].map((id) => Math.round(document.getElementById(id).getBoundingClientRect().top))).size";
        for (pause, theme) in [("Pause", "Light"), ("Resume", "Dark")] {
            assert_eq!((browser.text("#pause").await.as_str(), browser.text("#theme").await.as_str()), (pause, theme));
            assert_eq!(browser.eval(rows).await, 1, "time, {pause} and {theme} share a row");
            browser.click("#pause").await;
            browser.click("#theme").await;
        }
        let plots = "[...document.querySelectorAll('.plot canvas')].every((canvas) => canvas.getBoundingClientRect().width > 250)";
        assert_eq!(browser.eval(plots).await, true);
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn screen_readers_get_names_and_figures() {
    with_browser(Eyes::default(), |browser| async move {
        let _full = full(&browser).await;
        for landmark in ["body > header", "body > main", "body > footer", "form[aria-label]"] {
            assert_eq!(browser.eval(&format!("document.querySelectorAll('{landmark}').length")).await, 1, "{landmark}");
        }
        let headings = "[...document.querySelectorAll('h1, h2, h3')].filter((node) => node.checkVisibility()).map((node) => Number(node.tagName[1]))";
        let levels = browser.eval(headings).await;
        let levels: Vec<u64> = levels.as_array().unwrap().iter().map(|level| level.as_u64().unwrap()).collect();
        assert!(levels[0] == 1 && levels.windows(2).all(|two| two[1] <= two[0] + 1), "{levels:?}");
        let nameless = "[...document.querySelectorAll('section:not([aria-labelledby]):not([role]), .plot:not([aria-label]), select, input')]
            .filter((node) => node.checkVisibility() && !(node.labels && node.labels.length)).map((node) => node.outerHTML.slice(0, 100))";
        assert_eq!(browser.eval(nameless).await, json!([]));
        let label = browser.eval("document.querySelector('#memory-usage .plot').getAttribute('aria-label')").await;
        let label = label.as_str().unwrap();
        assert!(label.starts_with("Memory Usage, now: ") && label.ends_with(" MiB"), "{label}");
        // Values that change each second must not be read out each second.
        assert_eq!(browser.eval("document.querySelectorAll('#content [aria-live], #content [role=status], #content [role=alert]').length").await, 0);
        let unnamed = "[...document.querySelectorAll('[aria-labelledby]')].filter((node) => !document.getElementById(node.getAttribute('aria-labelledby'))).length";
        assert_eq!(browser.eval(unnamed).await, 0);
        let ids = "(() => { const ids = [...document.querySelectorAll('[id]')].map((node) => node.id); return ids.length - new Set(ids).size; })()";
        assert_eq!(browser.eval(ids).await, 0);
        browser.close().await;
    })
    .await;
}
