//! The shipped files pass the checks and match each other.

use batchsql_core::ErrorClass;
use batchsql_monitoring::lint;

use crate::tree::{DASHBOARD, root};

#[test]
fn the_shipped_files_have_no_findings() {
    let report = lint(&root()).unwrap();
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, [""; 0]);
    // Files were found: a renamed folder would be empty and without findings.
    assert!(report.files > 40 && report.rules >= 25 && report.queries > 100, "{report:?}");
}

#[test]
fn alertmanager_routes_what_rules_have_and_silences_no_other_instance() {
    let read = |file: &str| std::fs::read_to_string(root().join("monitoring").join(file)).unwrap();
    let (routes, rules) = (read("alertmanager.yml"), read("rules/alerts.yml") + &read("rules/prod/alerts.yml"));
    for severity in routes.split("severity=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(rules.contains(&format!("severity: {severity}\n")), "no rule has the severity {severity}");
    }
    let stalled = routes.split("[alertname=\"BatchSqlStalled\"]").nth(1).unwrap();
    let equal = stalled.lines().find_map(|line| line.trim().strip_prefix("equal: ")).unwrap();
    assert_eq!(equal, "[cluster, job, instance, database]");
}

#[test]
fn the_runbook_of_failures_has_every_class_of_errors() {
    let runbook = std::fs::read_to_string(root().join("docs/runbooks/BatchSqlFailureRatioHigh.md")).unwrap();
    let rows: String = runbook.lines().filter(|line| line.starts_with("| `")).collect();
    for class in ErrorClass::ALL {
        assert!(rows.contains(&format!("`{}`", class.name())), "it does not say what to do for {}", class.name());
    }
}

#[test]
fn the_panels_of_the_tuning_guide_are_in_the_dashboard() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    let (dashboard, guide) = (read(DASHBOARD), read("docs/guides/tuning.md"));
    let is_title = |text: &str| dashboard.contains(&format!("\"title\": \"{text}\""));
    let table = guide.split("\n| panel |").nth(1).unwrap().split("\n\n").next().unwrap();
    let cells = table.lines().skip(2).filter_map(|line| line.split('|').nth(1)).map(str::trim);
    let named: Vec<_> = cells.filter(|cell| !cell.is_empty()).collect();
    assert!(named.len() > 10, "{named:?}");
    for cell in named {
        // One panel, whose title may have commas, or several.
        assert!(is_title(cell) || cell.split(", ").all(is_title), "the dashboard has no panel {cell}");
    }
}
