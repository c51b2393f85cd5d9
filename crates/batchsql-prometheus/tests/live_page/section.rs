//! Owns what is checked in the same way for every section that only some pipelines have: it is hidden without them.
//! Must not know the figures of a section.

use batchsql_prometheus::{PrometheusMetrics, Reporter};
use serde_json::{Value, json};

use crate::browser::{Browser, Eyes, with_browser};
use crate::exporter::{Pipeline, small};

/// A section of the page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section {
    /// The id of the section, and of the element with its tiles.
    pub(crate) id: &'static str,
    pub(crate) tiles: &'static str,
    /// The group of its curves.
    pub(crate) group: &'static str,
    /// The pipeline that has it.
    pub(crate) database: &'static str,
}

impl Section {
    /// Checks that the section is hidden while only the pipeline `plain` is there, passes the reporter of one that has the
    /// section to `test`, and checks that it is hidden again when `plain` is chosen.
    pub(crate) async fn check(self, test: impl AsyncFnOnce(&Browser, &Reporter)) {
        with_browser(Eyes::default(), |browser| async move {
            let metrics = PrometheusMetrics::new().unwrap();
            let mut plain = Pipeline::start(&metrics, "plain", small());
            let address = metrics.start_server(0).await.unwrap();
            plain.write("events", 10).await;
            browser.open(&format!("http://{address}/")).await;
            browser.wait("document.querySelector('#tile-rows-per-second .note').innerText === '10 written'").await;
            assert!(!self.is_visible(&browser).await, "no pipeline has the section");
            assert_eq!(self.tiles(&browser).await, json!([]));

            test(&browser, &metrics.reporter(self.database)).await;

            let choose = "const select = document.getElementById('database'); select.value = arguments[0];
                select.dispatchEvent(new Event('change'));";
            browser.run(choose, &["plain".into()]).await;
            assert!(!self.is_visible(&browser).await, "the chosen pipeline does not have the section");
            browser.run(choose, &["".into()]).await;
            assert!(self.is_visible(&browser).await);
            assert_eq!(browser.console().await, Vec::<String>::new());
            browser.close().await;
        })
        .await;
    }

    async fn is_visible(self, browser: &Browser) -> bool {
        browser.is_visible(&format!("#{}", self.id)).await
    }

    pub(crate) async fn wait_until_visible(self, browser: &Browser) {
        browser.wait(&format!("document.getElementById('{}').checkVisibility()", self.id)).await;
    }

    /// Text and tone of each tile.
    pub(crate) async fn tiles(self, browser: &Browser) -> Value {
        let tiles = format!("[...document.querySelectorAll('#{} .tile')]", self.tiles);
        browser.eval(&format!("{tiles}.map((tile) => [tile.innerText, tile.dataset.tone])")).await
    }

    /// Each curve, with the name and the last value of its lines.
    pub(crate) async fn curves(self, browser: &Browser) -> Value {
        let curves = format!("batchsqlLive.page.curves.filter((curve) => curve.panel.group === '{}')", self.group);
        let lines = "[curve.panel.id, curve.lines.map((line) => [line.name, line.values.at(-1)])]";
        browser.eval(&format!("{curves}.map((curve) => {lines})")).await
    }
}

/// Waits until the page has had so many more responses.
pub(crate) async fn wait_for_ticks(browser: &Browser, more: u64) {
    let tick = browser.eval("batchsqlLive.page.history.tick").await.as_u64().unwrap();
    browser.wait(&format!("batchsqlLive.page.history.tick >= {}", tick + more)).await;
}

/// Checks the text and the tone of a tile.
pub(crate) async fn check_tile(browser: &Browser, id: &str, text: &str, tone: &str) {
    let tile = format!("document.getElementById('tile-{id}')");
    let found = browser.eval(&format!("[{tile}.innerText, {tile}.dataset.tone]")).await;
    assert_eq!(found, json!([text, tone]), "{id}");
}

/// Checks the tile of an age that was 700 s when the state was made, which is a reason for a warning.
pub(crate) async fn check_age(browser: &Browser, id: &str) {
    let tile = format!("document.getElementById('tile-{id}').dataset");
    let age = browser.eval(&format!("Number({tile}.value)")).await;
    assert!((699.0..800.0).contains(&age.as_f64().unwrap()), "{age}");
    assert_eq!(browser.eval(&format!("{tile}.tone")).await, "warn", "{id}");
}
