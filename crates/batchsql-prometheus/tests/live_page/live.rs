//! Owns the checks of figures and curves while pipelines write: the page shows what was written.
//! Must not know the states without figures.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use batchsql_prometheus::{MemoryUsage, PrometheusMetrics, TestResult};
use batchsql_testkit::Step;
use serde_json::{Value, json};

use crate::browser::{Browser, Eyes, with_browser};
use crate::exporter::{Pipeline, Puppet, metrics_text, small};
use crate::section::wait_for_ticks;

/// Opens the page of these metrics and waits until it has had a response.
async fn look_at(browser: &Browser, metrics: &PrometheusMetrics) {
    let address = metrics.start_server(0).await.unwrap();
    browser.open(&format!("http://{address}/")).await;
    browser.wait("batchsqlLive.page.history.tick > 0").await;
}

/// The increases of all points of a kind of cell, as text of a script.
const INCREASES: &str = "batchsqlLive.page.history.cells('processed').reduce((all, cell) => all + cell.points
    .slice(0, batchsqlLive.page.history.end).reduce((sum, value) => sum + (value || 0), 0), 0)";

#[tokio::test]
async fn the_figures_are_those_of_what_was_written() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let mut pipeline = Pipeline::start(&metrics, "scripted", small());
        pipeline.write("before", 300).await;
        look_at(&browser, &metrics).await;
        browser.wait("document.querySelector('#tile-rows-per-second .note').innerText === '300 written'").await;

        pipeline.sink.script([Step::RejectRow(0)]);
        pipeline.write("events", 1_000).await;
        pipeline.write("orders", 234).await;
        let rejected = 1;
        let written = 1_534 - rejected;
        assert_eq!(pipeline.sink.applied().len(), written);
        let text = format!("document.querySelector('#tile-rows-per-second .note').innerText === '{},{} written'", 1, written - 1_000);
        browser.wait(&text).await;
        assert_eq!(browser.eval(INCREASES).await, written - 300, "every row is in one point of a curve, and only once");
        assert!(browser.text("#tile-rejected").await.starts_with("Rows rejected\n1\n"));
        assert_eq!(browser.eval("document.getElementById('tile-rejected').dataset.tone").await, "bad");
        assert!(browser.text("#tile-waiting").await.contains("\nof 200; 0 B of "));
        assert!(browser.text("#tile-oldest").await.contains("none"));
        assert_eq!(browser.text("#version").await, env!("CARGO_PKG_VERSION"));
        assert!(browser.text("#uptime").await.starts_with("up "));
        browser.wait("document.title.endsWith('rows/s – BatchSQL')").await;

        let rows = "[...document.querySelectorAll('#tables tbody tr')].map((row) => [0, 2, 3].map((i) => row.cells[i].innerText)).sort()";
        assert_eq!(browser.eval(rows).await, json!([["before", "300", "0"], ["events", "999", "1"], ["orders", "234", "0"]]));
        assert!(!browser.is_visible("#cases").await && browser.is_visible("#no-tests").await);
        assert_eq!(browser.console().await, Vec::<String>::new());
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn rates_and_percentiles_are_those_of_the_last_seconds() {
    with_browser(Eyes::default(), |browser| async move {
        // 1,000 rows a second in 10 batches, of which 9 take 3 ms and one takes 70 ms.
        let begin = Instant::now();
        let puppet = Puppet::start(move |_, _| {
            let seconds = begin.elapsed().as_secs_f64();
            let batches = seconds * 10.0;
            let labels = "database=\"d\",table=\"t\",status=\"success\"";
            let buckets = [("0.0025", 0.0), ("0.005", 0.9), ("0.05", 0.9), ("0.1", 1.0), ("+Inf", 1.0)].map(|(le, share)| {
                format!("batchsql_batch_execution_duration_seconds_bucket{{{labels},le=\"{le}\"}} {}\n", batches * share)
            });
            metrics_text(format!(
                "{}batchsql_records_processed_total{{database=\"d\",table=\"t\"}} {}\n\
                 batchsql_batch_execution_total{{{labels}}} {batches}\n\
                 batchsql_buffer_records{{database=\"d\"}} 40\nbatchsql_buffer_records_limit{{database=\"d\"}} 100\n\
                 batchsql_buffer_bytes{{database=\"d\"}} 1024\nbatchsql_buffer_bytes_limit{{database=\"d\"}} 10240\n\
                 batchsql_inflight_batches{{database=\"d\"}} 3\nbatchsql_concurrency_limit{{database=\"d\"}} 4\n\
                 batchsql_oldest_buffered_record_timestamp_seconds{{database=\"d\"}} {}\n",
                buckets.concat(),
                seconds * 1_000.0,
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64() - 5.0,
            ))
        })
        .await;
        browser.open(&puppet.url("/")).await;
        browser.wait("batchsqlLive.page.history.tick >= 6").await;
        let tile = |id: &str| format!("Number(document.getElementById('tile-{id}').dataset.value)");
        let number = |value: Value| value.as_f64().unwrap();
        // The server counts when it responds and the page when it has read: a difference of milliseconds in three
        // seconds, more on a busy machine.
        let rate = number(browser.eval(&tile("rows-per-second")).await);
        assert!((700.0..1_300.0).contains(&rate), "{rate}");
        // The rank 0.99 is nine tenths into the bucket from 50 to 100 ms, independent of the exact interval.
        let p99 = number(browser.eval(&tile("p99")).await);
        assert!((p99 - 0.095).abs() < 1e-6, "{p99}");
        assert!(browser.text("#tile-p99").await.starts_with("Batch p99\n95.0 ms"));
        assert_eq!(browser.eval(&tile("buffer")).await, 40);
        assert_eq!(browser.text("#tile-inflight").await, "In flight\n3\nof 4 batches at once");
        let age = number(browser.eval(&tile("oldest")).await);
        assert!((4.9..20.0).contains(&age), "{age}");

        let lines = browser
            .eval("batchsqlLive.page.curves.filter((curve) => curve.lines.length).map((curve) => [curve.panel.id, curve.lines.map((line) => line.name)])")
            .await;
        let expected = json!([
            ["records-per-second", ["d"]], ["records-processing-rate", ["t"]], ["batch-execution-duration", ["p50", "p90", "p99"]],
            ["batch-execution-rate", ["success"]], ["buffer-fill", ["rows", "bytes"]],
        ]);
        assert_eq!(lines, expected);
        browser.close().await;
    })
    .await;
}

/// Whether the canvas of a panel has pixels of the colour of one of its lines.
const PAINTED: &str = "const curve = batchsqlLive.page.curves.find((curve) => curve.panel.id === arguments[0]);
    const canvas = curve.host.querySelector('canvas');
    const stroke = getComputedStyle(document.documentElement).getPropertyValue('--' + curve.lines[arguments[1]].tone).trim();
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(stroke.slice(i, i + 2), 16));
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    let found = 0;
    for (let i = 0; i < data.length; i += 4) {
        if (Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 24 && data[i + 3] > 200) found += 1;
    }
    return found;";

#[tokio::test]
async fn a_run_of_tests_shows_all_curves_and_the_results() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let mut pipeline = Pipeline::start(&metrics, "scripted", small());
        look_at(&browser, &metrics).await;
        let usage = |mib: u64| MemoryUsage { alloc: Some(mib << 20), sys: Some((mib + 5) << 20), ..Default::default() };
        for (case, passed, integrity) in [("first_case", true, 100.0), ("second_case", false, 99.99)] {
            metrics.set_current_test_case(case);
            let ticks = browser.eval("batchsqlLive.page.history.tick").await.as_u64().unwrap();
            let mut step = 0_u32;
            loop {
                pipeline.write("events", 100).await;
                step += 1;
                metrics.record_real_time_metrics("scripted", case, 1_000.0 + f64::from(step), 64.0);
                metrics.record_memory("scripted", case, &usage(20 + u64::from(step % 2)));
                if browser.eval("batchsqlLive.page.history.tick").await.as_u64().unwrap() >= ticks + 3 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            browser.wait(&format!("document.querySelector('#cases').innerText.includes('{case}\\tRunning')")).await;
            let result = TestResult {
                duration: Duration::from_millis(3_500), total_records: 2_000, actual_records: 1_999, data_integrity_rate: integrity,
                records_per_second: 777.0, rps_valid: true, success: passed, ..Default::default()
            };
            metrics.record_test_result("scripted", case, &result);
            let word = if passed { "Passed" } else { "Failed" };
            browser.wait(&format!("document.querySelector('#cases').innerText.includes('{case}\\t{word}')")).await;
        }
        // The second point after the last test: a line and not a dot.
        wait_for_ticks(&browser, 2).await;
        for (panel, line) in [
            ("records-per-second", 0), ("records-per-second", 1), ("records-processing-rate", 0), ("batch-execution-duration", 2),
            ("batch-execution-rate", 0), ("buffer-fill", 1), ("outcomes", 0), ("memory-usage", 1), ("data-integrity-rate", 0),
            ("test-success-status", 1),
        ] {
            let painted = browser.run(PAINTED, &[panel.into(), line.into()]).await.as_u64().unwrap();
            assert!(painted > 10, "{panel} {line}: {painted} pixels");
        }
        let rows = "[...document.querySelectorAll('#cases tbody tr')].map((row) => [...row.cells].map((cell) => cell.innerText))";
        let expected = json!([
            ["second_case", "Failed", "777", "99.99", "1,999", "2,000", "3.50"],
            ["first_case", "Passed", "777", "100", "1,999", "2,000", "3.50"],
        ]);
        assert_eq!(browser.eval(rows).await, expected);
        assert_eq!(browser.text("#cases-note").await, "1 passed, 1 failed");
        let markers = browser.eval("batchsqlLive.page.markers().map((marker) => marker.text)").await;
        assert_eq!(markers, json!(["first_case passed", "second_case failed"]));

        // The curve of a test ends with it, although its gauges stay.
        browser
            .wait("Number.isNaN(batchsqlLive.page.history.cells('rps', { test_case: 'first_case' })[0].points[batchsqlLive.page.history.end - 1])")
            .await;

        // Filtered to one of the two.
        browser.run("const select = document.getElementById('test-case'); select.value = 'second_case'; select.dispatchEvent(new Event('change'));", &[]).await;
        let names = "batchsqlLive.page.curves.find((curve) => curve.panel.id === 'records-per-second').lines.map((line) => line.name)";
        assert_eq!(browser.eval(names).await, json!(["second_case"]));
        assert_eq!(browser.eval("document.querySelectorAll('#cases tbody tr').length").await, 1);
        assert_eq!(browser.console().await, Vec::<String>::new());
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn announced_cases_wait_and_silent_ones_do_not_run_for_ever() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&metrics);
        let say = |text: &str| *metrics.lock().unwrap() = text.to_owned();
        // All series of both cases exist before the first one begins.
        let counters = |case: &str, rows: u32| {
            let labels = format!("database=\"d\",table=\"t_{case}\",test_case=\"{case}\"");
            format!(
                "batchsql_records_processed_total{{{labels}}} {rows}\n\
                 batchsql_batch_execution_total{{{labels},status=\"success\"}} {}\n\
                 batchsql_batch_execution_total{{{labels},status=\"failure\"}} 0\n\
                 batchsql_batch_execution_duration_seconds_bucket{{{labels},status=\"success\",le=\"+Inf\"}} {}\n\
                 batchsql_records_outcome_total{{database=\"d\",table=\"t_{case}\",outcome=\"written\"}} {rows}\n",
                rows / 10,
                rows / 10,
            )
        };
        say(&[counters("one", 0), counters("two", 0)].concat());
        let puppet = Puppet::start(move |_, _| metrics_text(told.lock().unwrap().clone())).await;
        browser.open(&puppet.url("/")).await;
        let results = "[...document.querySelectorAll('#cases tbody tr')].map((row) => row.cells[0].innerText + ' ' + row.cells[1].innerText).join()";
        browser.wait(&format!("{results} === 'one Waiting,two Waiting'")).await;
        browser.wait("batchsqlLive.page.history.tick >= 3").await;
        assert_eq!(browser.text("#cases-note").await, "0 passed, 0 failed, 2 waiting");
        assert!(!browser.is_visible("#tables").await, "no table has had a row");
        let lines = "batchsqlLive.page.curves.find((curve) => curve.panel.id === 'records-processing-rate').lines.map((line) => line.name).join()";
        assert_eq!(browser.eval(lines).await, "");

        // Its first rows are written before its first rate is recorded.
        say(&[counters("one", 0), counters("two", 50)].concat());
        browser.wait(&format!("{results} === 'two Running,one Waiting'")).await;
        browser.wait(&format!("{lines} === 't_two'")).await;
        let rps = "batchsql_test_rps{database=\"d\",test_case=\"two\"} 123\n";
        say(&[&counters("one", 0), &counters("two", 50), rps].concat());
        browser.wait("document.querySelector('#cases tbody tr').cells[2].innerText === '123'").await;
        assert_eq!(browser.eval(results).await, "two Running,one Waiting");

        // Two minutes without a change, simulated: the case ended without a result.
        let pass = "for (let i = 0; i < 125; i++) batchsqlLive.page.history.take(arguments[0], Date.now());";
        let text = metrics.lock().unwrap().clone();
        browser.run(pass, &[text.into()]).await;
        browser.wait(&format!("{results} === 'two No result,one Waiting'")).await;
        say(&[&counters("one", 0), &counters("two", 60), rps].concat());
        browser.wait(&format!("{results} === 'two Running,one Waiting'")).await;
        let ended = "batchsql_test_success{database=\"d\",test_case=\"two\"} 1\n\
            batchsql_test_last_completion_timestamp_seconds{database=\"d\",test_case=\"two\"} 5\n";
        say(&[&counters("one", 0), &counters("two", 60), rps, ended].concat());
        browser.wait(&format!("{results} === 'two Passed,one Waiting'")).await;
        assert_eq!(browser.console().await, Vec::<String>::new());
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn controls_do_what_they_say() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let mut one = Pipeline::start(&metrics, "one", small());
        let mut two = Pipeline::start(&metrics, "two", small());
        look_at(&browser, &metrics).await;
        one.write("events", 100).await;
        two.write("events", 40).await;
        browser.wait("document.querySelector('#tile-rows-per-second .note').innerText === '140 written'").await;
        browser.wait("batchsqlLive.page.history.tick >= 3").await;
        let lines = "batchsqlLive.page.curves.find((curve) => curve.panel.id === 'records-processing-rate').lines.map((line) => line.name).sort()";
        browser.wait(&format!("JSON.stringify({lines}) === '[\"one / events\",\"two / events\"]'")).await;
        browser.run("const select = document.getElementById('database'); select.value = 'two'; select.dispatchEvent(new Event('change'));", &[]).await;
        assert_eq!(browser.text("#tile-rows-per-second .note").await, "40 written");
        assert_eq!(browser.eval(lines).await, json!(["events"]));

        // Paused: the curves stop, the figures continue.
        browser.click("#pause").await;
        assert_eq!(browser.text("#status-word").await, "Live, curves paused");
        let last = "batchsqlLive.page.curves[0].times.at(-1)";
        let held = browser.eval(last).await;
        two.write("events", 2).await;
        browser.wait("document.querySelector('#tile-rows-per-second .note').innerText === '42 written'").await;
        assert_eq!(browser.eval(last).await, held);
        browser.click("#pause").await;
        browser.wait(&format!("{last} > {held}")).await;

        // A line can be hidden, and a window chosen, by keyboard alone.
        browser.write("input[name=window]:checked", "\u{E014}").await;
        assert_eq!(browser.eval("batchsqlLive.page.view.window").await, 5 * 60_000);
        let key = "#batch-execution-rate .keys button";
        browser.write(key, " ").await;
        assert_eq!(browser.eval(&format!("document.querySelector('{key}').getAttribute('aria-pressed')")).await, "false");
        assert_eq!(browser.eval("document.activeElement.closest('article').id").await, "batch-execution-rate");
        browser.write("#batch-execution-rate .plot", "\u{E012}").await;
        assert!(browser.is_visible("#batch-execution-rate .tip").await);
        assert_eq!(browser.console().await, Vec::<String>::new());
        browser.close().await;
    })
    .await;
}
