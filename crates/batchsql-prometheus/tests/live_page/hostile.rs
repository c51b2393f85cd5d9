//! Owns the checks that names of tables, databases and test cases are shown as text, never as markup.
//! Must not know figures.

use batchsql_prometheus::{PrometheusMetrics, TestResult};
use serde_json::json;

use crate::browser::{Eyes, with_browser};
use crate::exporter::{Pipeline, small};

const HOSTILE: [&str; 6] = [
    "<img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script>",
    "\"} 1\nbatchsql_records_processed_total{table=\"forged\"} 9999999\n",
    "__proto__",
    "javascript:alert(1)//${document.title='owned'}",
    "line\nbreak \\ \u{202e}back\u{0}",
];

#[tokio::test]
async fn labels_are_text_whatever_they_hold() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let address = metrics.start_server(0).await.unwrap();
        browser.open(&format!("http://{address}/")).await;
        browser.wait("batchsqlLive.page.history.tick > 0").await;
        let elements = browser.eval("document.querySelectorAll('img, script, iframe, style, link').length").await;
        let mut pipelines = Vec::new();
        for (i, name) in HOSTILE.iter().enumerate() {
            metrics.set_current_test_case(name);
            let mut pipeline = Pipeline::start(&metrics, name, small());
            pipeline.write(&format!("t{i}"), 10).await;
            let result = TestResult { success: true, data_integrity_rate: 100.0, ..Default::default() };
            metrics.record_test_result(name, name, &result);
            pipelines.push(pipeline);
        }
        browser.wait("document.querySelector('#tile-rows-per-second .note')?.innerText === '60 written'").await;
        browser.wait("batchsqlLive.page.history.tick >= 3").await;
        let options = "[...document.querySelectorAll('#test-case option')].slice(1).map((option) => option.value).sort()";
        let mut names = HOSTILE.to_vec();
        names.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
        assert_eq!(browser.eval(options).await, json!(names));
        assert_eq!(browser.eval("document.querySelectorAll('#cases tbody tr').length").await, HOSTILE.len());
        for name in HOSTILE {
            let script = "return [...document.querySelectorAll('#cases tbody th')].some((cell) => cell.textContent.includes(arguments[0]));";
            assert_eq!(browser.run(script, &[name.into()]).await, true, "{name:?}");
        }
        assert_eq!(browser.eval("document.querySelectorAll('img, script, iframe, style, link').length").await, elements);
        assert!(!browser.text("body").await.contains("9,999,999"));
        assert_ne!(browser.eval("document.title").await, "owned");
        assert_eq!(browser.eval("({}).database === undefined && Object.keys(Object.prototype).length === 0").await, true);
        assert_eq!(browser.console().await, Vec::<String>::new());

        let requests = browser.requests().await;
        let expected = format!("http://{address}/metrics");
        assert!(!requests.is_empty() && requests.iter().all(|request| *request == expected), "{requests:?}");

        // Even an injected element would not run.
        let inject = "const script = document.createElement('script'); script.textContent = 'window.injected = true';
            document.body.append(script); return window.injected === true;";
        assert_eq!(browser.run(inject, &[]).await, false);
        assert!(browser.console().await.iter().any(|line| line.contains("Content Security Policy")));
        browser.close().await;
    })
    .await;
}
