//! Owns the checks of the section for a durable intake: hidden without one, and with its figures.
//! Must not know a log.

use std::time::Duration;

use batchsql_core::{DurableProgress, MetricsReporter};
use batchsql_prometheus::PrometheusMetrics;
use serde_json::json;

use crate::browser::{Eyes, with_browser};
use crate::exporter::{Pipeline, log_state, small};

#[tokio::test]
async fn a_durable_intake_has_a_section_that_other_pipelines_do_not_have() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let mut plain = Pipeline::start(&metrics, "plain", small());
        let address = metrics.start_server(0).await.unwrap();
        plain.write("events", 10).await;
        browser.open(&format!("http://{address}/")).await;
        browser.wait("document.querySelector('#tile-rows-per-second .note').innerText === '10 written'").await;
        assert!(!browser.is_visible("#durable").await, "no pipeline has a durable intake");
        assert_eq!(browser.eval("document.querySelectorAll('#log-tiles .tile').length").await, 0);

        // A start without a row: no table is known.
        let reporter = metrics.reporter("durable");
        let mut empty = log_state(16, 0, &[]);
        empty.tables.clear();
        reporter.durable_gauges(&empty);
        reporter.durable_progress(&DurableProgress::default());
        browser.wait("document.getElementById('durable').checkVisibility()").await;
        let tiles =
            "[...document.querySelectorAll('#log-tiles .tile')].map((tile) => [tile.innerText, tile.dataset.tone])";
        let quiet = json!([
            ["Rows in the log\n0\n0 read from it", ""],
            ["Log\n1.56 %\n16.0 MiB of 1.00 GiB", ""],
            ["Oldest row in the log\nnone\nevery row has ended", ""],
            ["Sync p99\n–\nno sync within 3 s", ""],
            ["Stopped partitions\n0\n–", ""],
            ["Damaged parts\n0\n0 rows given up, 0 disk failures", ""],
        ]);
        assert_eq!(browser.eval(tiles).await, quiet);

        // An outage, a full log, stopped partitions, and damage.
        let mut state = log_state(1_000, 1_200, &["orders", "audit", "users"]);
        state.log_is_full = true;
        let mut progress = DurableProgress::default();
        (progress.rows, progress.quarantined_parts, progress.missing_rows, progress.disk_failures) = (1_200, 2, 3, 1);
        reporter.durable_gauges(&state);
        reporter.durable_progress(&progress);
        let tick = browser.eval("batchsqlLive.page.history.tick").await.as_u64().unwrap();
        for _ in 0..100 {
            reporter.durable_synced(Duration::from_micros(3_000));
        }
        browser.wait(&format!("batchsqlLive.page.history.tick >= {}", tick + 2)).await;
        let text = |id: &str| format!("document.getElementById('tile-{id}').innerText");
        let tone = |id: &str| format!("document.getElementById('tile-{id}').dataset.tone");
        assert_eq!(browser.eval(&text("in-log")).await, "Rows in the log\n1,200\n300 read from it");
        assert_eq!(browser.eval(&text("log-fill")).await, "Log\n97.7 %\naccepts no rows");
        assert_eq!(browser.eval(&text("stopped")).await, "Stopped partitions\n3\naudit, orders, 1 more");
        assert_eq!(browser.eval(&text("damage")).await, "Damaged parts\n2\n3 rows given up, 1 disk failure");
        let age = browser.eval("Number(document.getElementById('tile-oldest-in-log').dataset.value)").await;
        assert!((699.0..800.0).contains(&age.as_f64().unwrap()), "{age}");
        for (id, expected) in
            [("in-log", ""), ("log-fill", "bad"), ("oldest-in-log", "warn"), ("stopped", "bad"), ("damage", "bad")]
        {
            assert_eq!(browser.eval(&tone(id)).await, expected, "{id}");
        }
        // A hundred syncs in the bucket from 2.5 to 5 ms; the rank 0.99 is near its end. The curve keeps the value.
        let syncs = "batchsqlLive.page.curves.find((curve) => curve.panel.id === 'sync-duration').lines[1].values
            .some((value) => Math.abs(value - 4.975) < 0.001)";
        browser.wait(syncs).await;
        let lines = "batchsqlLive.page.curves.filter((curve) => curve.panel.group === 'log')
            .map((curve) => [curve.panel.id, curve.lines.map((line) => [line.name, line.values.at(-1)])])";
        let lines = browser.eval(lines).await;
        assert_eq!(lines[0], json!(["rows-in-log", [["in the log", 1_200], ["read", 300]]]));
        assert_eq!(lines[1], json!(["log-fill", [["bytes", 97.65625]]]));
        assert_eq!(lines[2][1][0][0], "stored", "{lines}");

        // Of another database there is nothing to show.
        let choose = "const select = document.getElementById('database'); select.value = arguments[0];
            select.dispatchEvent(new Event('change'));";
        browser.run(choose, &["plain".into()]).await;
        assert!(!browser.is_visible("#durable").await);
        browser.run(choose, &["".into()]).await;
        assert!(browser.is_visible("#durable").await);
        assert_eq!(browser.console().await, Vec::<String>::new());
        browser.close().await;
    })
    .await;
}
