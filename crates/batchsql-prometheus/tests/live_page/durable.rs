//! Owns the checks of the section for a durable intake: hidden without one, and with its figures.
//! Must not know a log.

use std::time::Duration;

use batchsql_core::{DurableProgress, MetricsReporter};
use batchsql_prometheus::Reporter;
use serde_json::json;

use crate::browser::Browser;
use crate::exporter::log_state;
use crate::section::{Section, check_age, check_tile, wait_for_ticks};

const DURABLE: Section = Section { id: "durable", tiles: "log-tiles", group: "log", database: "durable" };

#[tokio::test]
async fn a_durable_intake_has_a_section_that_other_pipelines_do_not_have() {
    let test = async |browser: &Browser, reporter: &Reporter| {
        // A start without a row: no table is known.
        let mut empty = log_state(16, 0, &[]);
        empty.tables.clear();
        reporter.durable_gauges(&empty);
        reporter.durable_progress(&DurableProgress::default());
        DURABLE.wait_until_visible(browser).await;
        let quiet = json!([
            ["Rows in the log\n0\n0 read from it", ""],
            ["Log\n1.56 %\n16.0 MiB of 1.00 GiB", ""],
            ["Oldest row in the log\nnone\nevery row has ended", ""],
            ["Sync p99\n–\nno sync within 3 s", ""],
            ["Stopped partitions\n0\n–", ""],
            ["Damaged parts\n0\n0 rows given up, 0 disk failures", ""],
        ]);
        assert_eq!(DURABLE.tiles(browser).await, quiet);

        // An outage, a full log, stopped partitions, and damage.
        let mut state = log_state(1_000, 1_200, &["orders", "audit", "users"]);
        state.log_is_full = true;
        let mut progress = DurableProgress::default();
        (progress.rows, progress.quarantined_parts, progress.missing_rows, progress.disk_failures) = (1_200, 2, 3, 1);
        reporter.durable_gauges(&state);
        reporter.durable_progress(&progress);
        for _ in 0..100 {
            reporter.durable_synced(Duration::from_micros(3_000));
        }
        wait_for_ticks(browser, 2).await;
        let expected = [
            ("in-log", "Rows in the log\n1,200\n300 read from it", ""),
            ("log-fill", "Log\n97.7 %\naccepts no rows", "bad"),
            ("stopped", "Stopped partitions\n3\naudit, orders, 1 more", "bad"),
            ("damage", "Damaged parts\n2\n3 rows given up, 1 disk failure", "bad"),
        ];
        for (id, text, tone) in expected {
            check_tile(browser, id, text, tone).await;
        }
        check_age(browser, "oldest-in-log").await;
        // A hundred syncs in the bucket from 2.5 to 5 ms; the rank 0.99 is near its end. The curve keeps the value.
        let syncs = "batchsqlLive.page.curves.find((curve) => curve.panel.id === 'sync-duration').lines[1].values
            .some((value) => Math.abs(value - 4.975) < 0.001)";
        browser.wait(syncs).await;
        let curves = DURABLE.curves(browser).await;
        assert_eq!(curves[0], json!(["rows-in-log", [["in the log", 1_200], ["read", 300]]]));
        assert_eq!(curves[1], json!(["log-fill", [["bytes", 97.65625]]]));
        assert_eq!(curves[2][1][0][0], "stored", "{curves}");
    };
    DURABLE.check(test).await;
}
