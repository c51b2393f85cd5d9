//! `junit.xml` for continuous integration: a test suite per database, a test case per case.
//! Must not know the page or the table.

use std::time::Duration;

use anyhow::Context as _;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::model::{CaseResult, Report, Status};
use super::number::{count, measure, percent};

/// The report as JUnit XML. Databases appear in the order in which they first ran.
///
/// # Errors
/// None in practice: characters that XML forbids are removed.
pub fn to_string(report: &Report) -> anyhow::Result<String> {
    let mut junit = quick_junit::Report::new("batchsql-integration");
    junit.set_time(seconds(report.summary.duration_seconds));
    let made = chrono::DateTime::parse_from_rfc3339(&report.generated_at).ok();
    if let Some(made) = made {
        junit.set_timestamp(made);
    }
    for database in databases(report) {
        let mut suite = TestSuite::new(database);
        let cases = report.results.iter().filter(|case| case.result.database == database);
        suite.set_time(seconds(cases.clone().map(|case| case.result.duration.as_secs_f64()).sum()));
        if let Some(made) = made {
            suite.set_timestamp(made);
        }
        suite.add_property(("batchsql_version", report.environment.batchsql_version.as_str()));
        suite.add_property(("interrupted", if report.summary.interrupted { "true" } else { "false" }));
        if let Some(info) = report.environment.databases.iter().find(|info| info.name == database) {
            suite.add_property(("database_version", info.version.as_str()));
        }
        suite.add_test_cases(cases.map(test_case));
        junit.add_test_suite(suite);
    }
    junit.to_string().context("cannot write the report as JUnit XML")
}

fn databases(report: &Report) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for case in &report.results {
        if !names.contains(&case.result.database.as_str()) {
            names.push(&case.result.database);
        }
    }
    names
}

fn test_case(case: &CaseResult) -> TestCase {
    let result = &case.result;
    let mut status = match case.status() {
        Status::Passed => TestCaseStatus::success(),
        Status::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Status::Skipped => TestCaseStatus::skipped(),
    };
    match case.status() {
        Status::Passed => {}
        Status::Failed => {
            status.set_type("case failed");
            status.set_message(result.errors.first().map_or("the case failed without a message", String::as_str));
            status.set_description(details(case));
        }
        Status::Skipped => {
            status.set_message(result.errors.first().map_or("not run", String::as_str));
        }
    }
    let mut test = TestCase::new(result.test_name.as_str(), status);
    test.set_classname(format!("batchsql.{}", result.database));
    test.set_time(seconds(result.duration.as_secs_f64()));
    if !case.skipped {
        test.set_system_out(figures(case));
    }
    test
}

fn details(case: &CaseResult) -> String {
    let integrity = &case.integrity;
    let mut text = String::new();
    for error in &case.result.errors {
        text.push_str(error);
        text.push('\n');
    }
    text.push_str(&format!(
        "rows: expected {}, found {}\nchecksum: expected {}, found {}\n",
        count(integrity.expected_rows),
        count(integrity.actual_rows),
        integrity.expected_checksum,
        integrity.actual_checksum,
    ));
    for (outcome, rows) in &case.balance {
        text.push_str(&format!("{outcome}: {}\n", count(*rows)));
    }
    text
}

fn figures(case: &CaseResult) -> String {
    let result = &case.result;
    format!(
        "{} records in {} s, {} records/s{}, integrity {} %, peak memory {} MB",
        count(result.total_records),
        measure(result.duration.as_secs_f64()),
        measure(result.records_per_second),
        if result.rps_valid { "" } else { " (not comparable)" },
        percent(result.data_integrity_rate),
        measure(case.memory.peak_mb),
    )
}

/// Zero for a figure that is not a valid duration, so that the file is still written.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn root(xml: &str) -> &str {
        xml.lines().find(|line| line.starts_with("<testsuites")).unwrap()
    }

    #[test]
    fn counts_agree_with_the_summary() {
        for report in [sample::report(), sample::edges(), Report::default()] {
            let xml = to_string(&report).unwrap();
            let root = root(&xml);
            assert!(root.contains(&format!(r#"tests="{}""#, report.summary.total)), "{root}");
            assert!(root.contains(&format!(r#"failures="{}""#, report.summary.failed)), "{root}");
            assert!(root.contains(r#"errors="0""#), "{root}");
            assert_eq!(xml.matches("<testsuite ").count(), databases(&report).len());
            assert_eq!(xml.matches("<testcase ").count(), report.summary.total);
            assert_eq!(xml.matches("<failure ").count(), report.summary.failed);
            assert_eq!(xml.matches("<skipped").count(), report.summary.skipped);
        }
    }

    #[test]
    fn a_failure_carries_its_message_and_details() {
        let xml = to_string(&sample::report()).unwrap();
        let failed = sample::report().results.into_iter().find(|case| case.status() == Status::Failed).unwrap();
        let (_, failure) = xml.split_once("<failure ").unwrap();
        let (failure, _) = failure.split_once("</failure>").unwrap();
        assert!(failure.contains(&format!(r#"message="{}""#, failed.result.errors[0])), "{failure}");
        for error in &failed.result.errors {
            assert!(failure.contains(error), "{failure}");
        }
        assert!(failure.contains(&failed.integrity.actual_checksum), "{failure}");
    }

    #[test]
    fn hostile_strings_and_figures_are_tamed() {
        let mut report = sample::edges();
        let case = &mut report.results[0].result;
        case.records_per_second = f64::NAN;
        case.errors = vec!["control \u{1b}[31m \u{0} and ]]> end".to_owned()];
        report.generated_at = "yesterday".to_owned();
        let xml = to_string(&report).unwrap();
        assert!(!xml.contains("<img") && !xml.contains("</script>"), "{xml}");
        assert!(!xml.contains(['\u{0}', '\u{1b}']), "{xml}");
    }
}
