//! An annotation in Grafana: start, end and result of a run of the suite.
//! Must not know how the suite was run.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use serde_json::{Value, json};

use crate::http;

const PATIENCE: Duration = Duration::from_secs(10);
/// `admin:admin123`, in base64.
const LOGIN: &str = "Basic YWRtaW46YWRtaW4xMjM=";

/// Marks a run on every dashboard that shows annotations with the tag `batchsql`.
///
/// # Errors
/// Grafana does not respond, or rejects the annotation.
pub(crate) fn annotate(
    grafana: &str,
    from: SystemTime,
    until: SystemTime,
    passed: bool,
    report: Option<&Value>,
) -> anyhow::Result<()> {
    let body = body(from, until, passed, report);
    let answer = http::post(&format!("{grafana}/api/annotations"), &[("Authorization", LOGIN)], &body, PATIENCE)?;
    anyhow::ensure!(answer.status != 401, "Grafana does not accept the login admin / admin123");
    answer.json().context("Grafana rejects the annotation")?;
    Ok(())
}

/// The report of a run, unless it is from an earlier run.
pub(crate) fn report(folder: &Path, since: SystemTime) -> Option<Value> {
    let file = folder.join("report.json");
    // File times may have a resolution of one second.
    let written = file.metadata().ok()?.modified().ok()? + Duration::from_secs(1);
    if written < since {
        return None;
    }
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

fn body(from: SystemTime, until: SystemTime, passed: bool, report: Option<&Value>) -> Value {
    let word = if passed { "passed" } else { "failed" };
    json!({
        "time": millis(from),
        "timeEnd": millis(until),
        "tags": ["batchsql", "integration-test", word],
        "text": text(word, report),
    })
}

fn text(word: &str, report: Option<&Value>) -> String {
    let Some(report) = report else { return format!("integration test {word}") };
    let (summary, number) = (&report["summary"], |value: &Value| value.as_u64().unwrap_or(0));
    let databases: Vec<_> =
        report["config"]["databases"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text = format!(
        "integration test {word} on {}: {} of {} cases, {} records in {:.0} s",
        databases.join(", "),
        number(&summary["passed"]),
        number(&summary["total"]),
        number(&summary["records"]),
        summary["duration_seconds"].as_f64().unwrap_or(0.0),
    );
    for case in report["results"].as_array().into_iter().flatten() {
        if case["success"] == false && case["skipped"] != true {
            let name = |key: &str| case[key].as_str().unwrap_or("?").to_owned();
            text += &format!("\nfailed: {} on {}", name("test_name"), name("database"));
        }
    }
    text
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_a_region_with_its_result() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let report = json!({
            "config": { "databases": ["sqlite", "redis"] },
            "summary": { "passed": 1, "total": 3, "records": 2000, "duration_seconds": 9.6 },
            "results": [
                { "database": "sqlite", "test_name": "large_batch", "success": false, "skipped": false },
                { "database": "redis", "test_name": "large_batch", "success": true, "skipped": false },
                { "database": "redis", "test_name": "other", "success": false, "skipped": true },
            ],
        });
        let body = body(at(1), at(3), false, Some(&report));
        assert_eq!((&body["time"], &body["timeEnd"]), (&json!(1000), &json!(3000)));
        assert_eq!(body["tags"], json!(["batchsql", "integration-test", "failed"]));
        assert_eq!(
            body["text"],
            "integration test failed on sqlite, redis: 1 of 3 cases, 2000 records in 10 s\nfailed: large_batch on sqlite"
        );
    }

    #[test]
    fn a_report_of_an_earlier_run_is_not_taken() {
        let folder = std::env::temp_dir().join(format!("batchsql-report-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("report.json"), "{\"a\": 1}").unwrap();
        assert_eq!(report(&folder, SystemTime::now()), Some(json!({ "a": 1 })));
        assert_eq!(report(&folder, SystemTime::now() + Duration::from_secs(60)), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
