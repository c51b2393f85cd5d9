//! Owns the checks of the page's arithmetic: its functions in the browser against an implementation here.
//! Must not know what is shown.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::browser::{Browser, Eyes, with_browser};
use crate::exporter::{Puppet, metrics_text};

async fn idle(browser: &Browser) -> Puppet {
    let puppet = Puppet::start(|_, _| metrics_text("batchsql_build_info{version=\"1\"} 1\n")).await;
    browser.open(&puppet.url("/")).await;
    puppet
}

/// As the documentation of Prometheus describes `histogram_quantile`.
fn quantile(q: f64, bounds: &[f64], counts: &[f64]) -> Option<f64> {
    let total = *counts.last()?;
    if total <= 0.0 {
        return None;
    }
    let rank = q * total;
    let bucket = counts.iter().position(|count| *count >= rank)?;
    if bucket == bounds.len() - 1 {
        return Some(bounds[bounds.len() - 2]);
    }
    let (low, below) = if bucket == 0 { (0.0, 0.0) } else { (bounds[bucket - 1], counts[bucket - 1]) };
    let found = low + (bounds[bucket] - low) * (rank - below) / (counts[bucket] - below);
    // The lower bound of an empty bucket, as in Prometheus.
    (!found.is_nan()).then_some(found)
}

#[tokio::test]
async fn quantiles_are_those_of_prometheus() {
    with_browser(Eyes::default(), |browser| async move {
        let _puppet = idle(&browser).await;
        let bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, f64::INFINITY];
        // Buckets of many shapes, from a small generator with a fixed seed.
        let mut seed = 7_u64;
        for _ in 0..200 {
            let mut counts = Vec::new();
            let mut count = 0_u64;
            for _ in bounds {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                count += if seed >> 62 == 0 { 0 } else { (seed >> 40) % 1_000 };
                counts.push(count as f64);
            }
            let script = "const [qs, bounds, counts] = arguments;
                return qs.map((q) => batchsqlLive.figures.quantile(q, [...bounds, Infinity], counts));";
            let qs = [0.0, 0.5, 0.9, 0.99, 1.0];
            let found = browser.run(script, &[json!(qs), json!(bounds[..14]), json!(counts)]).await;
            for (q, found) in qs.iter().zip(found.as_array().unwrap()) {
                match (quantile(*q, &bounds, &counts), found.as_f64()) {
                    (Some(expected), Some(found)) => {
                        assert!((expected - found).abs() <= 1e-9 * expected.max(1.0), "{q} {counts:?}: {expected} {found}");
                    }
                    (expected, found) => assert_eq!(expected, found, "{q} {counts:?}"),
                }
            }
        }
        let odd = "const q = batchsqlLive.figures.quantile;
            return [q(0.5, [1, Infinity], [0, 0]), q(0.5, [Infinity], [3]), q(0.5, [1, 2], [1, 2]), q(0.5, [1, 2, Infinity], [4, 3, 4])]
                .map((value) => (Number.isNaN(value) ? 'none' : value));";
        assert_eq!(browser.run(odd, &[]).await, json!(["none", "none", "none", 0.5]));
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_text_format_is_read_as_it_is_written() {
    with_browser(Eyes::default(), |browser| async move {
        let _puppet = idle(&browser).await;
        let text = [
            "# HELP wanted Text with {braces=\"x\"} 7",
            "# TYPE wanted counter",
            "wanted{a=\"1\"} 1",
            "wanted{a=\"} 9\",b=\"x\"} 2 1700000000000",
            "wanted{a=\"back\\\\slash \\\"quote\\\" new\\nline \\t\",b=\"\",} 3",
            "wanted {a=\"space\"} 4",
            "wanted{ a = \"1\" , b = \"2\" } +Inf",
            "wanted -Inf",
            "wanted{a=\"nan\"} NaN",
            "wanted_too{a=\"1\"} 5",
            "unwanted{a=\"1\"} 6",
            "",
            "wanted{a=\"1e\"} 1.5e+3",
            // Invalid lines: no value, not a number, labels without an end, a name without a value.
            "wanted{a=\"1\"}",
            "wanted{a=\"1\"} many",
            "wanted{a=\"1 7",
            "wanted",
            "wanted{__proto__=\"x\",constructor=\"y\"} 8",
        ]
        .join("\r\n")
        .replace('\r', "");
        let script = "const found = [];
            const broken = batchsqlLive.parse.scan(arguments[0], new Map([['wanted', 'w'], ['wanted_too', 't']]), (which, raw, value) => {
                const labels = batchsqlLive.parse.labels(raw.trim());
                found.push([which, labels && [...labels], String(value)]);
            });
            return [found, broken];";
        let found = browser.run(script, &[text.into()]).await;
        let expected = json!([
            [
                ["w", [["a", "1"]], "1"],
                ["w", [["a", "} 9"], ["b", "x"]], "2"],
                ["w", [["a", "back\\slash \"quote\" new\nline \\t"], ["b", ""]], "3"],
                ["w", [["a", "space"]], "4"],
                ["w", [["a", "1"], ["b", "2"]], "Infinity"],
                ["w", [], "-Infinity"],
                ["w", [["a", "nan"]], "NaN"],
                ["t", [["a", "1"]], "5"],
                ["w", [["a", "1e"]], "1500"],
                ["w", [["__proto__", "x"], ["constructor", "y"]], "8"],
            ],
            4
        ]);
        assert_eq!(found, expected);
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn counters_become_rates_whatever_happens_to_them() {
    with_browser(Eyes::default(), |browser| async move {
        let _puppet = idle(&browser).await;
        // [milliseconds, the counter or null for a lost connection, start of the process, another series]
        let script = "const history = new batchsqlLive.History(16);
            for (const [at, value, begun, late] of arguments[0]) {
                if (value === null) { history.gap(at); continue; }
                history.take('process_start_time_seconds ' + begun + '\\n'
                    + 'batchsql_records_processed_total{database=\"d\",table=\"t\"} ' + value + '\\n'
                    + (late === undefined ? '' : 'batchsql_records_processed_total{database=\"d\",table=\"u\"} ' + late + '\\n'), at);
            }
            const [from, to] = history.range(0);
            const all = batchsqlLive.figures.sum(history.cells('processed'), from, to);
            const rate = batchsqlLive.figures.rate(all, history.spans, from, 3);
            return [[...all], [...rate]].map((row) => row.map((value) => (Number.isNaN(value) ? null : value)));";
        let scrapes = json!([
            [0, 100, 1], [1_000, 110, 1], [2_000, 130, 1], [3_000, 160, 1],
            // Down: the counter restarted at 0.
            [4_000, 5, 1],
            [5_000, null, 1],
            // Four seconds since the last response, and 20 rows.
            [8_000, 25, 1],
            // A restarted process may already be above the value of the old one.
            [9_000, 40, 50],
            // A new series started at 0.
            [10_000, 50, 50, 7],
        ]);
        let found = browser.run(script, &[scrapes]).await;
        let expected = json!([
            [null, 10, 20, 30, 5, null, 20, 40, 17],
            [null, 10, 15, 20, (20.0 + 30.0 + 5.0) / 3.0, null, 5, 60.0 / 5.0, 77.0 / 6.0],
        ]);
        let numbers = |value: &Value| -> Vec<Option<f64>> {
            value.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()).map(Value::as_f64).collect()
        };
        for (i, (found, expected)) in numbers(&found).into_iter().zip(numbers(&expected)).enumerate() {
            let fits = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
                (found, expected) => found == expected,
            };
            assert!(fits, "{i}: {found:?} instead of {expected:?}");
        }
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_history_is_bounded_in_time_and_in_series() {
    with_browser(Eyes::default(), |browser| async move {
        let _puppet = idle(&browser).await;
        let script = "const history = new batchsqlLive.History(50);
            for (let at = 0; at < 1000; at++) {
                let text = 'batchsql_buffer_records{database=\"d\"} ' + at + '\\n';
                for (let i = 0; i < 40; i++) text += 'batchsql_records_processed_total{database=\"d\",table=\"t' + at + '_' + i + '\"} 1\\n';
                history.take(text, at * 1000);
            }
            const [from, to] = history.range(0);
            const [buffer] = history.cells('bufferRecords');
            return { points: to - from, first: buffer.points[from], last: buffer.points[to - 1], length: history.times.length,
                cells: history.cells('processed').length, entries: history.wanted.get('batchsql_records_processed_total').entries.size };";
        let found = browser.run(script, &[]).await;
        assert_eq!(found["points"], 50, "{found}");
        assert_eq!(found["first"], 950, "{found}");
        assert_eq!(found["last"], 999, "{found}");
        assert_eq!(found["length"], 100, "{found}");
        assert!(found["cells"].as_u64().unwrap() <= 2_501, "{found}");
        assert!(found["entries"].as_u64().unwrap() <= 40 * 241, "{found}");
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_history_is_bounded_also_in_databases() {
    with_browser(Eyes::default(), |browser| async move {
        let _puppet = idle(&browser).await;
        let script = "const history = new batchsqlLive.History(4);
            const les = ['0.1', '1', '+Inf'];
            for (let at = 0; at < 8; at++) {
                let text = '';
                for (let i = 0; i < 1000; i++) {
                    const labels = 'database=\"d' + at + '_' + i + '\",table=\"t' + i + '\"';
                    text += 'batchsql_buffer_records{' + labels + '} 1\\n';
                    for (const le of les) text += 'batchsql_batch_execution_duration_seconds_bucket{' + labels + ',le=\"' + le + '\"} 1\\n';
                }
                history.take(text, at * 1000);
            }
            const sizes = ['bufferRecords', 'durations'].map((id) => history.cells(id).length);
            const rows = batchsqlLive.figures.sum(history.cells('bufferRecords'), 0, history.end);
            const bounds = new Set(history.cells('durations').map((cell) => cell.labels.get('le')));
            return [...sizes, rows[rows.length - 1], [...bounds]];";
        let found = browser.run(script, &[]).await;
        assert_eq!(found[0], 2 * 600 + 1, "all later names share one");
        assert!(found[1].as_u64().unwrap() <= 2 * 3_000 + 3, "{found}");
        assert_eq!(found[2], 1_000, "and none of them is lost");
        assert_eq!(found[3], json!(["0.1", "1", "+Inf"]));
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn integrity_is_neither_rounded_nor_added_up() {
    with_browser(Eyes::default(), |browser| async move {
        let cases: Vec<(String, f64)> = (0..12)
            // The five worst are neither the first nor the last.
            .map(|i| (format!("case_{i}"), if (3..8).contains(&i) { f64::from(i) * 10.0 } else { 99.0 + f64::from(i) / 100.0 }))
            .chain([("nearly".to_owned(), 99.999_997), ("whole".to_owned(), 100.0)])
            .collect();
        let text: String = cases
            .iter()
            .flat_map(|(case, rate)| {
                let labels = format!("{{database=\"d\",test_case=\"{case}\"}}");
                [("data_integrity_rate", *rate), ("success", 0.0), ("last_completion_timestamp_seconds", 5.0)]
                    .map(|(name, value)| format!("batchsql_test_{name}{labels} {value}\n"))
            })
            .collect();
        let puppet = Puppet::start(move |_, _| metrics_text(text.clone())).await;
        browser.open(&puppet.url("/")).await;
        browser.wait("batchsqlLive.page.history.tick >= 2").await;
        let legend = "[...document.querySelectorAll('#data-integrity-rate .keys li')].map((key) => [key.querySelector('.name').innerText, key.querySelector('b').innerText])";
        let expected = json!([
            ["lowest", "30 %"], ["case_3", "30 %"], ["case_4", "40 %"], ["case_5", "50 %"], ["case_6", "60 %"], ["case_7", "70 %"],
            ["case_0", "99 %"], ["7 others", "99.01 %"],
        ]);
        assert_eq!(browser.eval(legend).await, expected);
        browser.run("const select = document.getElementById('test-case'); select.value = 'nearly'; select.dispatchEvent(new Event('change'));", &[]).await;
        assert_eq!(browser.eval(legend).await, json!([["lowest", "99.99 %"], ["nearly", "99.99 %"]]));
        assert_eq!(browser.eval("document.querySelector('#cases tbody tr').cells[3].innerText").await, "99.99");
        let written = "[99.1, 99.999997, 99.9999999999, 100, 81.6, 0, NaN].map(batchsqlLive.figures.percent)";
        assert_eq!(browser.eval(written).await, json!(["99.1", "99.99", "99.99", "100", "81.6", "0", "–"]));
        browser.close().await;
    })
    .await;
}

/// Five megabytes with every family that the page reads, as of 100 tables in 20 test cases.
fn large(round: u64) -> String {
    let mut text = String::new();
    let les = [
        "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "+Inf",
    ];
    for table in 0..100 {
        for case in 0..20 {
            let labels = format!("database=\"postgres\",table=\"table_{table}\",test_case=\"case_{case}\"");
            writeln!(text, "batchsql_records_processed_total{{{labels}}} {}", round * 100).unwrap();
            for (i, le) in les.iter().enumerate() {
                let count = round * 10 * (i as u64 + 1);
                writeln!(text, "batchsql_batch_execution_duration_seconds_bucket{{{labels},status=\"success\",le=\"{le}\"}} {count}")
                    .unwrap();
            }
        }
        for outcome in ["written", "ignored", "superseded", "rejected", "expired", "purged", "unknown"] {
            let labels = format!("database=\"postgres\",table=\"table_{table}\",outcome=\"{outcome}\"");
            writeln!(text, "batchsql_records_outcome_total{{{labels}}} {round}").unwrap();
        }
    }
    // The rest belongs to families that the page does not read.
    while text.len() < 5 << 20 {
        let line = "batchsql_queue_wait_seconds_bucket{database=\"postgres\",table=\"a_table_of_someone\",le=\"0.25\"} 12345\n";
        text.push_str(line);
    }
    text
}

#[tokio::test]
async fn five_megabytes_a_second_leave_the_page_responsive() {
    with_browser(Eyes::default(), |browser| async move {
        let round = std::sync::atomic::AtomicU64::new(0);
        let puppet =
            Puppet::start(move |_, _| metrics_text(large(round.fetch_add(1, std::sync::atomic::Ordering::Relaxed))))
                .await;
        browser.open(&puppet.url("/")).await;
        browser.wait("batchsqlLive.page.history.tick >= 8").await;
        let script = "const { history } = batchsqlLive.page;
            const text = arguments[0];
            const times = [];
            for (let i = 0; i < 5; i++) {
                const begun = performance.now();
                batchsqlLive.parse.scan(text, history.wanted, () => {});
                times.push(performance.now() - begun);
            }
            return { parse: Math.min(...times), cost: batchsqlLive.page.poller.cost, broken: history.broken,
                series: history.wanted.get('batchsql_batch_execution_duration_seconds_bucket').entries.size };";
        let found = browser.run(script, &[large(1).into()]).await;
        println!("5 MB: {found}");
        assert_eq!(found["series"], 30_000);
        assert_eq!(found["broken"], 0);
        // Measured: about 30 ms to parse and 90 ms in total. The page has one second.
        assert!(found["parse"].as_f64().unwrap() < 500.0, "{found}");
        assert!(found["cost"].as_f64().unwrap() < 1_000.0, "{found}");
        assert_eq!(browser.text("#tables-note").await, "100 tables, the busiest first; 60 more are not shown");
        browser.close().await;
    })
    .await;
}
