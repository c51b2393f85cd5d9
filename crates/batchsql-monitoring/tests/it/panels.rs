//! The queries of a dashboard, to a simulated Prometheus.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::spawn;
use std::time::Duration;

use batchsql_monitoring::{Choice, PrometheusError, panels};

const DASHBOARD: &str = r#"{
  "panels": [
    {"type": "row", "title": "Row"},
    {"type": "stat", "title": "Now", "targets": [{"refId": "A", "expr": "up{job=~\"$job\"}", "instant": true}]},
    {"type": "timeseries", "title": "Rate", "targets": [
      {"refId": "A", "expr": "rate(a[$__rate_interval])"}, {"refId": "B", "expr": "b{database=~\"$database\"}"}]}
  ],
  "annotations": {"list": [{"name": "Alerts", "expr": "ALERTS"}, {"name": "built in"}]},
  "templating": {"list": [{"name": "job", "type": "query", "query": "label_values(up, job)"}]}
}"#;

const NONE: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
const ONE: &str =
    r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"j"},"value":[1,"1"]}]}}"#;
const NAN: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"NaN"]]},{"metric":{},"values":[[1,"NaN"],[2,"3"]]}]}}"#;

/// Responds to each request with `answer` of its first line; returns its address and the requests.
fn prometheus(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let Some(first) = lines.next() else { continue };
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            log.lock().unwrap().push(first.clone());
            let (status, body) = answer(&first);
            let length = body.len();
            let head = format!("HTTP/1.1 {status} -\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    (url, asked)
}

fn answered(body: &'static str) -> impl Fn(&str) -> (u16, String) + Send + 'static {
    move |_| (200, body.to_owned())
}

#[test]
fn every_query_is_asked_with_its_variables() {
    let (url, asked) = prometheus(answered(ONE));
    let choice = Choice { database: "post.*".to_owned(), ..Choice::default() };
    let panels = panels(&url, DASHBOARD, &choice, Duration::ZERO).unwrap();
    let counts: Vec<_> =
        panels.answers.iter().map(|answer| (&*answer.place, &*answer.reference, answer.series)).collect();
    let expected =
        [("Now", "A", 1), ("Rate", "A", 1), ("Rate", "B", 1), ("annotation Alerts", "", 1), ("variable job", "", 1)];
    assert_eq!(counts, expected);
    assert_eq!(panels.missing().count(), 0);
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with("GET /api/v1/query?query=up%7Bjob%3D~%22.%2B%22%7D "), "{asked:#?}");
    assert!(asked[1].starts_with("GET /api/v1/query_range?query=rate(a%5B20s%5D)&start="), "{asked:#?}");
    assert!(asked[2].contains("post.*"), "{asked:#?}");
    assert!(asked[4].contains("count%20by%20(job)"), "{asked:#?}");
}

#[test]
fn what_has_no_data_is_missing_except_alerts() {
    let (url, _) = prometheus(answered(NONE));
    let panels = panels(&url, DASHBOARD, &Choice::default(), Duration::ZERO).unwrap();
    let missing: Vec<_> = panels.missing().map(|answer| format!("{} {}", answer.place, answer.reference)).collect();
    assert_eq!(missing, ["Now A", "Rate A", "Rate B", "variable job "]);
    let table = panels.to_string();
    assert!(table.contains("MISSING") && table.contains("(no alert fires)"), "{table}");
}

/// SQLite has no pool, and an application no tests; but exported metrics must be shown.
#[test]
fn a_metric_that_nobody_exports_is_excused() {
    let dashboard = DASHBOARD.replace("rate(a[", "sum_over_time(batchsql_pool_connections[");
    let missing = |is_exported: bool| {
        let answer =
            move |first: &str| (200, if is_exported && first.contains("__name__") { ONE } else { NONE }.to_owned());
        let panels = panels(&prometheus(answer).0, &dashboard, &Choice::default(), Duration::ZERO).unwrap();
        let excused = panels.to_string().contains("(no sink has a pool)");
        let missing = panels.missing().any(|answer| answer.place == "Rate" && answer.reference == "A");
        assert_eq!(excused, !missing, "{panels}");
        missing
    };
    assert!(!missing(false));
    assert!(missing(true));
}

#[test]
fn a_series_that_is_never_a_number_is_told() {
    let (url, _) = prometheus(answered(NAN));
    let panels = panels(&url, DASHBOARD, &Choice::default(), Duration::ZERO).unwrap();
    assert_eq!((panels.answers[1].series, panels.answers[1].with_numbers), (2, 1));
    assert!(!panels.missing().any(|answer| answer.place == "Rate"), "one of them has a number");
    let (url, _) = prometheus(|_| (200, NAN.replace(",[2,\"3\"]", "")));
    let panels = batchsql_monitoring::panels(&url, DASHBOARD, &Choice::default(), Duration::ZERO).unwrap();
    assert_eq!((panels.answers[1].series, panels.answers[1].with_numbers), (2, 0));
    assert!(panels.missing().any(|answer| answer.place == "Rate"), "{panels}");
    assert!(panels.to_string().contains("MISSING: no number"), "{panels}");
}

#[test]
fn it_waits_until_the_data_is_there() {
    const HOUR: Duration = Duration::from_secs(3_600);
    // The dashboard sends three queries at a time.
    let questions = AtomicUsize::new(0);
    let late = move |_: &str| (200, if questions.fetch_add(1, SeqCst) < 6 { NONE } else { ONE }.to_owned());
    let (url, _) = prometheus(late);
    // It returns when the data is there, not after an hour.
    let panels = panels(&url, DASHBOARD, &Choice::default(), HOUR).unwrap();
    assert_eq!(panels.missing().count(), 0);
}

#[test]
fn refusals_are_told_with_the_panel() {
    let check = |status: u16, body: &'static str, is_query: bool, expected: &str| {
        let (url, _) = prometheus(move |_| (status, body.to_owned()));
        let error = panels(&url, DASHBOARD, &Choice::default(), Duration::ZERO).unwrap_err();
        assert_eq!(error.downcast_ref::<PrometheusError>().unwrap().is_query(), is_query);
        let message = format!("{error:#}");
        assert!(message.starts_with("Now: up{job=~\".+\"}: ") && message.contains(expected), "{message}");
    };
    check(400, r#"{"status":"error","error":"parse error"}"#, true, "rejects the query: parse error");
    check(200, "<html>Grafana</html>", false, "is not a Prometheus");
    check(404, "404 page not found", false, "responds with 404");
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        lines.take_while(|line| !line.is_empty()).for_each(drop);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"status\":").unwrap();
    });
    let error = panels(&url, DASHBOARD, &Choice::default(), Duration::ZERO).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.contains(&format!("the response of {url} is incomplete")), "{message}");
}

#[test]
fn a_file_that_is_no_dashboard_is_refused() {
    let error = panels("http://127.0.0.1:1", "[]", &Choice::default(), Duration::ZERO).unwrap_err();
    assert!(format!("{error:#}").contains("not a dashboard"), "{error:#}");
    let unknown = DASHBOARD.replace("$database", "$databse");
    let error = panels("http://127.0.0.1:1", &unknown, &Choice::default(), Duration::ZERO).unwrap_err();
    assert!(format!("{error:#}").contains("Rate: there is no variable $databse"), "{error:#}");
}
