//! Owns the checks of the section for the feeds of a stream: hidden without them, and with their figures.
//! Must not know a stream.

use batchsql_core::{FeedProgress, MetricsReporter};
use batchsql_prometheus::Reporter;
use serde_json::json;

use crate::browser::Browser;
use crate::exporter::feed_state;
use crate::section::{Section, check_age, check_tile, wait_for_ticks};

const FEEDS: Section = Section { id: "fed", tiles: "feed-tiles", group: "feeds", database: "fed" };

#[tokio::test]
async fn feeds_have_a_section_that_other_pipelines_do_not_have() {
    let test = async |browser: &Browser, reporter: &Reporter| {
        // A worker on an empty stream: no table is known.
        let mut empty = feed_state(0, &[]);
        empty.tables.clear();
        reporter.feed_gauges(&empty);
        FEEDS.wait_until_visible(browser).await;
        let quiet = json!([
            ["Messages behind\n0\n0 not delivered", ""],
            ["Oldest message\nnone\nnone is known", ""],
            ["Partitions held\n0\nof 0", ""],
            ["Stopped partitions\n0\n0 waiting", ""],
            ["Stream\nanswers\n0 takeovers, 0 fences", ""],
            ["Dead letters\n0\n0 foreign messages, 0 given up", ""],
        ]);
        assert_eq!(FEEDS.tiles(browser).await, quiet);

        // A backlog, partitions that nobody has, stopped ones, a stream that is unreachable, and what was set aside.
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
        browser.wait(&format!("{} === 'Messages behind\\n1,200\\n300 not delivered'", text("behind"))).await;
        let expected = [
            ("partitions-held", "Partitions held\n14\nof 16; 2 nobody has", "bad"),
            ("stopped-feeds", "Stopped partitions\n3\naudit other source, orders other source, 1 more", "bad"),
            ("source", "Stream\ndown\nfed", "bad"),
            ("set-aside", "Dead letters\n3\n1 foreign messages, 2 given up", "bad"),
        ];
        for (id, text, tone) in expected {
            check_tile(browser, id, text, tone).await;
        }
        check_age(browser, "oldest-message").await;
        wait_for_ticks(browser, 1).await;
        let curves = FEEDS.curves(browser).await;
        assert_eq!(curves[0], json!(["messages-behind", [["not written", 1_200], ["not delivered", 300]]]));
        assert_eq!(curves[1][1][0][0], "read", "{curves}");
        let partitions = [("wanted", 16), ("held", 14), ("waiting", 0), ("nobody has", 2)];
        assert_eq!(curves[2], json!(["partitions", partitions]));

        // Stopped in time: the stream answers again, and the takeovers are shown.
        state.source_up = Some(true);
        reporter.feed_gauges(&state);
        browser.wait(&format!("{} === 'Stream\\nanswers\\n4 takeovers, 1 fences'", text("source"))).await;
    };
    FEEDS.check(test).await;
}
