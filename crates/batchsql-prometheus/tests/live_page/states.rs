//! Owns the checks of the states without curves: no data yet, no connection, no access, restart.
//! Must not know figures, except to check that they are back.

use std::sync::Mutex;
use std::time::Duration;

use batchsql_prometheus::{PrometheusMetrics, ServerOptions};
use serde_json::json;

use crate::browser::{Eyes, with_browser};
use crate::exporter::{Answer, Pipeline, Puppet, metrics_text, small};

#[tokio::test]
async fn before_the_first_pipeline_it_says_what_to_do() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let address = metrics.start_server(0).await.unwrap();
        browser.open(&format!("http://{address}/")).await;
        browser.wait("document.getElementById('status-word').textContent === 'Waiting'").await;
        let text = browser.text("#empty").await;
        assert!(text.contains("No pipeline has reported yet") && text.contains(".metrics_reporter("), "{text}");
        assert!(!browser.is_visible("#content").await);
        assert_eq!(browser.eval("document.title").await, "Waiting – BatchSQL");

        let mut pipeline = Pipeline::start(&metrics, "scripted", small());
        pipeline.write("events", 10).await;
        browser.wait("document.getElementById('status-word').textContent === 'Live'").await;
        assert!(browser.is_visible("#content").await && !browser.is_visible("#empty").await);
        // Rows that were written before the second scrape are in the first point, because the series is new.
        browser.wait("batchsqlLive.page.curves[1].lines.length === 1").await;
        assert_eq!(browser.console().await, Vec::<String>::new());
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_is_told_and_comes_back_by_itself() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let address = metrics.start_server(0).await.unwrap();
        let mut pipeline = Pipeline::start(&metrics, "scripted", small());
        browser.open(&format!("http://{address}/")).await;
        pipeline.write("events", 100).await;
        browser.wait("document.querySelector('#tile-rows-per-second .note')?.innerText === '100 written'").await;
        browser.wait("batchsqlLive.page.curves[1].lines.length === 1").await;

        metrics.stop_server().await.unwrap();
        browser.wait("document.documentElement.dataset.state === 'lost'").await;
        let banner = browser.text("#lost").await;
        assert!(banner.contains("Connection lost since ") && banner.contains("cannot be reached"), "{banner}");
        assert_eq!(browser.eval("document.title").await, "Connection lost – BatchSQL");
        assert_eq!(browser.text("#tile-rows-per-second .note").await, "100 written", "the last figures stay");
        assert_eq!(browser.eval("batchsqlLive.page.curves[1].lines.length").await, 1, "and the last curves");
        browser.wait("/[(][2-9] s[)]/.test(document.getElementById('lost-for').textContent)").await;

        pipeline.write("events", 11).await;
        metrics.start_server(address.port()).await.unwrap();
        browser.wait("document.documentElement.dataset.state === 'live'").await;
        assert!(!browser.is_visible("#lost").await);
        browser.wait("document.querySelector('#tile-rows-per-second .note').innerText === '111 written'").await;
        // A gap, and no line across it.
        let values = "[...batchsqlLive.page.curves[1].lines[0].values]";
        browser
            .wait(&format!("((v) => v.findLastIndex((x) => Number.isNaN(x)) > v.findIndex((x) => x > 0))({values})"))
            .await;
        let said = browser.console().await;
        assert!(said.iter().all(|line| line.contains("ERR_CONNECTION")), "{said:?}");
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_exporter_that_begins_anew_makes_no_spike() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let address = metrics.start_server(0).await.unwrap();
        let mut pipeline = Pipeline::start(&metrics, "scripted", small());
        pipeline.write("events", 10_000).await;
        browser.open(&format!("http://{address}/")).await;
        browser.wait("batchsqlLive.page.history.tick >= 2").await;

        metrics.stop_server().await.unwrap();
        let anew = PrometheusMetrics::new().unwrap();
        let mut pipeline = Pipeline::start(&anew, "scripted", small());
        pipeline.write("events", 70).await;
        anew.start_server(address.port()).await.unwrap();
        browser.wait("document.querySelector('#tile-rows-per-second .note').innerText === '70 written'").await;
        pipeline.write("events", 5).await;
        browser.wait("document.querySelector('#tile-rows-per-second .note').innerText === '75 written'").await;
        let increases = browser
            .eval("batchsqlLive.page.history.cells('processed').flatMap((cell) => [...cell.points].filter((value) => value !== 0 && !Number.isNaN(value)))")
            .await;
        let sum: f64 = increases.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).sum();
        assert_eq!(sum, 75.0, "{increases}");
        let lowest = "Math.min(...batchsqlLive.page.curves.flatMap((curve) => curve.lines.flatMap((line) => [...line.values].filter(Number.isFinite))))";
        assert_eq!(browser.eval(lowest).await, 0);
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_token_is_asked_for_and_kept_in_memory_only() {
    with_browser(Eyes::default(), |browser| async move {
        let puppet = Puppet::start(|_, token| match token {
            Some("Bearer right-token") => metrics_text("batchsql_buffer_records{database=\"d\"} 5\n"),
            _ => (401, vec![("www-authenticate", "Bearer realm=\"metrics\"".to_owned())], "no\n".to_owned()),
        })
        .await;
        browser.open(&puppet.url("/")).await;
        browser.wait("document.documentElement.dataset.state === 'token'").await;
        assert!(browser.text("#token").await.contains("This exporter requires a token"));
        let asked = puppet.scrapes().len();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(puppet.scrapes().len(), asked, "it waits for the token");

        browser.write("#token-value", "wrong-token\u{E007}").await;
        browser.wait("document.getElementById('token-reason').checkVisibility()").await;
        assert_eq!(browser.text("#token-reason").await, "The exporter refused this token.");
        browser.write("#token-value", "right-token\u{E007}").await;
        browser.wait("document.documentElement.dataset.state === 'live'").await;
        assert!(!browser.is_visible("#token").await && browser.is_visible("#content").await);
        let kept = "JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href, document.documentElement.outerHTML.includes('right-token'), document.getElementById('token-value').value])";
        assert_eq!(browser.eval(kept).await, format!("[{{}},{{}},\"\",\"{}\",false,\"\"]", puppet.url("/")));

        browser.open(&puppet.url("/")).await;
        browser.wait("document.documentElement.dataset.state === 'token'").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_token_of_a_real_exporter_opens_its_page() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let token = "a-token-of-more-than-sixteen-characters";
        let address = metrics.start_server_with(ServerOptions::new().port(0).bearer_token(token)).await.unwrap();
        let mut pipeline = Pipeline::start(&metrics, "scripted", small());
        pipeline.write("events", 10).await;
        browser.open(&format!("http://{address}/")).await;
        browser.wait("document.documentElement.dataset.state === 'token'").await;
        browser.write("#token-value", &format!("{token}\u{E007}")).await;
        browser.wait("document.querySelector('#tile-rows-per-second .note')?.innerText === '10 written'").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_token_that_no_request_can_carry_is_refused_with_the_reason() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let token = "a-token-of-more-than-sixteen-characters";
        let address = metrics.start_server_with(ServerOptions::new().port(0).bearer_token(token)).await.unwrap();
        let mut pipeline = Pipeline::start(&metrics, "scripted", small());
        pipeline.write("events", 10).await;
        browser.open(&format!("http://{address}/")).await;
        browser.wait("document.documentElement.dataset.state === 'token'").await;
        // As pasted from formatted text, and from two words.
        for (pasted, position) in [("a–token", 2), ("токен", 1), ("two words", 4), ("tab\there", 4)] {
            let paste = "document.getElementById('token-value').value = arguments[0]; document.getElementById('token-form').requestSubmit();";
            browser.run(paste, &[pasted.into()]).await;
            let reason = browser.text("#token-reason").await;
            assert!(reason.starts_with(&format!("This cannot be the token: character {position} is ")), "{pasted}: {reason}");
        }
        assert_eq!(browser.eval("document.documentElement.dataset.state").await, "token");
        assert_eq!(browser.requests().await.len(), 1, "nothing was sent");
        browser.write("#token-value", &format!("{token}\u{E007}")).await;
        browser.wait("document.querySelector('#tile-rows-per-second .note')?.innerText === '10 written'").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_password_of_a_real_exporter_opens_its_page() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let options = ServerOptions::new().port(0).basic_auth("prometheus", "pass:wörd €");
        let address = metrics.start_server_with(options).await.unwrap();
        let mut pipeline = Pipeline::start(&metrics, "scripted", small());
        pipeline.write("events", 10).await;
        browser.open(&format!("http://{address}/")).await;
        // A dialog of the browser would leave the page without a response.
        browser.wait("document.documentElement.dataset.state === 'password'").await;
        assert!(browser.text("#password").await.contains("This exporter requires a user and a password"));
        assert!(!browser.is_visible("#password-reason").await && !browser.is_visible("#lost").await);
        let asked = browser.requests().await.len();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(browser.requests().await.len(), asked, "it waits for the password");

        browser.write("#user-value", "prometheus").await;
        browser.write("#password-value", "wrong\u{E007}").await;
        browser.wait("document.getElementById('password-reason').checkVisibility()").await;
        assert_eq!(browser.text("#password-reason").await, "The exporter refused this user and password.");
        browser.write("#password-value", "pass:wörd €\u{E007}").await;
        browser.wait("document.querySelector('#tile-rows-per-second .note')?.innerText === '10 written'").await;
        assert!(!browser.is_visible("#password").await);
        let kept = "JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, document.getElementById('password-value').value])";
        assert_eq!(browser.eval(kept).await, "[{},{},\"\",\"\"]");

        // The page keeps it while it is open, also over a restart.
        metrics.stop_server().await.unwrap();
        browser.wait("document.documentElement.dataset.state === 'lost'").await;
        let options = ServerOptions::new().port(address.port()).basic_auth("prometheus", "pass:wörd €");
        metrics.start_server_with(options).await.unwrap();
        browser.wait("document.documentElement.dataset.state === 'live'").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_defect_of_the_page_is_told_and_does_not_stop_it() {
    with_browser(Eyes::default(), |browser| async move {
        let metrics = PrometheusMetrics::new().unwrap();
        let address = metrics.start_server(0).await.unwrap();
        let mut pipeline = Pipeline::start(&metrics, "scripted", small());
        pipeline.write("events", 10).await;
        browser.open(&format!("http://{address}/")).await;
        browser.wait("document.documentElement.dataset.state === 'live'").await;
        for error in ["TypeError", "AbortError"] {
            let broken = "const { history } = batchsqlLive.page;
                history.take = () => { throw Object.assign(new Error('no such cell'), { name: arguments[0] }); };";
            browser.run(broken, &[error.into()]).await;
            browser.wait("document.documentElement.dataset.state === 'defect'").await;
            assert_eq!(browser.text("#status-word").await, "Defect");
            let banner = browser.text("#defect").await;
            assert!(banner.contains("This page has a defect"), "{banner}");
            assert!(banner.contains(&format!("{error}: no such cell. What you see may be incomplete")), "{banner}");
            assert!(!browser.is_visible("#lost").await, "the exporter is there");
            let asked = browser.requests().await.len();
            browser.wait(&format!("performance.getEntriesByType('resource').length >= {}", asked + 2)).await;
            assert_eq!(
                browser.eval("document.documentElement.dataset.state").await,
                "defect",
                "and shows it as long as it lasts"
            );
            browser.run("delete batchsqlLive.page.history.take;", &[]).await;
            browser.wait("document.documentElement.dataset.state === 'live'").await;
            assert!(!browser.is_visible("#defect").await);
        }
        assert!(browser.console().await.iter().any(|line| line.contains("no such cell")), "details in the console");
        pipeline.write("events", 1).await;
        browser.wait("document.querySelector('#tile-rows-per-second .note').innerText === '11 written'").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn who_is_not_let_in_is_not_asked_each_second() {
    with_browser(Eyes::default(), |browser| async move {
        // A scheme that the page has no form for.
        let puppet =
            Puppet::start(|_, _| (401, vec![("www-authenticate", "Other realm=\"m\"".to_owned())], String::new()))
                .await;
        browser.open(&puppet.url("/")).await;
        browser.wait("document.documentElement.dataset.state === 'denied'").await;
        let asked = puppet.scrapes().len();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(puppet.scrapes().len(), asked);
        browser.click("#retry").await;
        browser.wait(&format!("performance.getEntriesByType('resource').length > {asked}")).await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn whatever_else_answers_is_told() {
    with_browser(Eyes::default(), |browser| async move {
        let answer: &'static Mutex<Answer> = Box::leak(Box::new(Mutex::new((503, vec![], "busy".to_owned()))));
        let puppet = Puppet::start(|_, _| answer.lock().unwrap().clone()).await;
        browser.open(&puppet.url("/")).await;
        browser.wait("document.getElementById('lost-reason').textContent.startsWith('The exporter responds with status 503.')").await;
        *answer.lock().unwrap() = (200, vec![("content-type", "text/html".to_owned())], "<html>Sign in</html>".to_owned());
        browser.wait("document.getElementById('lost-reason').textContent.startsWith('The server is not a BatchSQL exporter.')").await;
        // Half of the lines are invalid; the valid ones still count.
        *answer.lock().unwrap() = metrics_text("batchsql_buffer_records{database=\"d\"} 5\nbatchsql_buffer_records{{{\n\0\u{1}\nbatchsql_buffer_records{database=\"e\"} x\n");
        browser.wait("document.documentElement.dataset.state === 'live'").await;
        browser.wait("document.getElementById('tile-waiting')?.dataset.value === '5'").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn requests_never_overlap_and_go_beside_the_page() {
    with_browser(Eyes::default(), |browser| async move {
        let running = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (now, most) =
            (std::sync::Arc::clone(&running), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let seen = std::sync::Arc::clone(&most);
        let puppet = Puppet::start(move |_, _| {
            use std::sync::atomic::Ordering::SeqCst;
            seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            // Slower than the interval. It blocks a worker of the test's runtime, of which there is one per test.
            std::thread::sleep(Duration::from_millis(1_300));
            now.fetch_sub(1, SeqCst);
            metrics_text("batchsql_buffer_records{database=\"d\"} 5\n")
        })
        .await;
        // As behind a proxy that forwards a path without a slash at its end.
        browser.open(&puppet.url("/batch/metrics-of-us")).await;
        browser.wait("batchsqlLive.page.history.tick >= 3").await;
        assert_eq!(most.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert!(puppet.scrapes().windows(2).all(|two| two[1] - two[0] >= Duration::from_millis(1_250)));
        let mut paths = puppet.paths();
        paths.sort();
        paths.dedup();
        assert_eq!(paths, ["/batch/metrics-of-us", "/batch/metrics-of-us/metrics"]);
        let links =
            browser.eval("[...document.querySelectorAll('footer a')].map((a) => new URL(a.href).pathname)").await;
        assert_eq!(
            links,
            json!(["/batch/metrics-of-us/metrics", "/batch/metrics-of-us/health", "/batch/metrics-of-us/ready"])
        );
        browser.close().await;
    })
    .await;
}
