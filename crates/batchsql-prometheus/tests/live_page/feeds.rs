//! Owns the checks of the section for the feeds of a stream: hidden without them, and with their figures.
//! Must not know a stream.

use batchsql_core::{FeedProgress, MetricsReporter};
use batchsql_prometheus::PrometheusMetrics;
use serde_json::json;

use crate::browser::{Eyes, with_browser};
use crate::exporter::{Pipeline, feed_state, small};

#[tokio::test]
async fn feeds_have_a_section_that_other_pipelines_do_not_have() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let mut plain = Pipeline::start(&metrics, "plain", small());
        let address = metrics.start_server(0).await.unwrap();
        plain.write("events", 10).await;
        browser.open(&format!("http://{address}/")).await;
        browser.wait("document.querySelector('#tile-rows-per-second .note').innerText === '10 written'").await;
        assert!(!browser.is_visible("#fed").await, "no pipeline is fed from a stream");
        assert_eq!(browser.eval("document.querySelectorAll('#feed-tiles .tile').length").await, 0);

        // A worker on an empty stream: no table is known.
        let reporter = metrics.reporter("fed");
        let mut empty = feed_state(0, &[]);
        empty.tables.clear();
        reporter.feed_gauges(&empty);
        browser.wait("document.getElementById('fed').checkVisibility()").await;
        let tiles =
            "[...document.querySelectorAll('#feed-tiles .tile')].map((tile) => [tile.innerText, tile.dataset.tone])";
        let quiet = json!([
            ["Messages behind\n0\n0 not delivered", ""],
            ["Oldest message\nnone\nnone is known", ""],
            ["Partitions held\n0\nof 0", ""],
            ["Stopped partitions\n0\n0 waiting", ""],
            ["Stream\nanswers\n0 takeovers, 0 fences", ""],
            ["Dead letters\n0\n0 foreign messages, 0 given up", ""],
        ]);
        assert_eq!(browser.eval(tiles).await, quiet);

        // A backlog, partitions that nobody has, stopped ones, a stream that is away, and what was set aside.
        let mut state = feed_state(1_200, &["orders", "audit", "users"]);
        state.source_up = Some(false);
        (state.tables[0].held_partitions, state.tables[0].unheld_partitions) = (2, 2);
        let mut progress = FeedProgress::default();
        progress.table = "events".to_owned();
        (progress.read_rows, progress.written_rows, progress.dead_letters) = (600, 500, 3);
        (progress.foreign_messages, progress.missing_rows) = (1, 2);
        (progress.takeovers, progress.fences) = (4, 1);
        reporter.feed_gauges(&state);
        reporter.feed_progress(&progress);
        let text = |id: &str| format!("document.getElementById('tile-{id}').innerText");
        let tone = |id: &str| format!("document.getElementById('tile-{id}').dataset.tone");
        browser.wait(&format!("{} === 'Messages behind\\n1,200\\n300 not delivered'", text("behind"))).await;
        let expected = [
            ("partitions-held", "Partitions held\n14\nof 16; 2 nobody has", "bad"),
            ("stopped-feeds", "Stopped partitions\n3\naudit other source, orders other source, 1 more", "bad"),
            ("source", "Stream\naway\nfed", "bad"),
            ("set-aside", "Dead letters\n3\n1 foreign messages, 2 given up", "bad"),
        ];
        for (id, words, color) in expected {
            assert_eq!(browser.eval(&text(id)).await, words, "{id}");
            assert_eq!(browser.eval(&tone(id)).await, color, "{id}");
        }
        let age = browser.eval("Number(document.getElementById('tile-oldest-message').dataset.value)").await;
        assert!((699.0..800.0).contains(&age.as_f64().unwrap()), "{age}");
        assert_eq!(browser.eval(&tone("oldest-message")).await, "warn");
        let tick = browser.eval("batchsqlLive.page.history.tick").await.as_u64().unwrap();
        browser.wait(&format!("batchsqlLive.page.history.tick >= {}", tick + 1)).await;
        let lines = "batchsqlLive.page.curves.filter((curve) => curve.panel.group === 'feeds')
            .map((curve) => [curve.panel.id, curve.lines.map((line) => [line.name, line.values.at(-1)])])";
        let lines = browser.eval(lines).await;
        assert_eq!(lines[0], json!(["messages-behind", [["not written", 1_200], ["not delivered", 300]]]));
        assert_eq!(lines[1][1][0][0], "read", "{lines}");
        let partitions = [("wanted", 16), ("held", 14), ("waiting", 0), ("nobody has", 2)];
        assert_eq!(lines[2], json!(["partitions", partitions]));

        // Stopped in time: the stream answers again, and the takeovers are shown.
        state.source_up = Some(true);
        reporter.feed_gauges(&state);
        browser.wait(&format!("{} === 'Stream\\nanswers\\n4 takeovers, 1 fences'", text("source"))).await;

        // Of another database there is nothing to show.
        let choose = "const select = document.getElementById('database'); select.value = arguments[0];
            select.dispatchEvent(new Event('change'));";
        browser.run(choose, &["plain".into()]).await;
        assert!(!browser.is_visible("#fed").await);
        browser.run(choose, &["".into()]).await;
        assert!(browser.is_visible("#fed").await);
        assert_eq!(browser.console().await, Vec::<String>::new());
        browser.close().await;
    })
    .await;
}
