//! Each rule of the lint, with a file that breaks it. (The checks inside a query are tested beside their code.)

use crate::tree::{DASHBOARD, Tree};

const RECORDING: &str = "monitoring/rules/recording.yml";
const ALERTS: &str = "monitoring/rules/alerts.yml";
const TESTS: &str = "monitoring/rules/tests/recording.yml";
const RUNBOOK: &str = "docs/runbooks/BatchSqlStalled.md";

/// Edits a shipped file and expects a finding with this text, which includes file and place.
#[track_caller]
fn check(file: &str, from: &str, to: &str, expected: &str) {
    let tree = Tree::copy();
    tree.edit(file, from, to);
    says(&tree, expected);
}

#[track_caller]
fn says(tree: &Tree, expected: &str) {
    let findings = tree.findings();
    assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected:?} is not in {findings:#?}");
}

#[test]
fn names_and_labels_of_a_dashboard_are_checked() {
    let check = |from: &str, to: &str, expected: &str| check(DASHBOARD, from, to, expected);
    check(
        "sum by (job) (rate(batchsql_records_processed_total{",
        "sum by (job) (rate(batchsql_records_procesed_total{",
        "panel \"Rows Written per Second\": there is no metric",
    );
    check(
        "sum by (job, database, error_type) (rate",
        "sum by (job, database, class) (rate",
        "panel \"Errors by Type\": the operand of sum has no label class",
    );
    check("{{database}} {{error_type}}", "{{database}} {{table}}", "the legend uses table");
    check("status=\\\"success\\\"", "status=\\\"ok\\\"", "has no status=\"ok\"");
    check("deriv(batchsql_memory_usage_bytes", "rate(batchsql_memory_usage_bytes", "use deriv()");
    check("(rate(batchsql_errors_total{job=~\\\"$job\\\", ", "(rate(batchsql_errors_total{", "does not filter by job");
    check(
        "batchsql_parked_tables{job=~\\\"$job\\\", instance=~\\\"$instance\\\", database",
        "batchsql_parked_tables{job=~\\\"$job\\\", database",
        "does not filter by instance",
    );
    check(
        ", test_case=~\\\"$test_case\\\"}[$__rate_interval])) / (sum by",
        "}[$__rate_interval])) / (sum by",
        "does not filter by test_case",
    );
    check("job=~\\\"$job\\\"", "job!~\\\"$job\\\"", "does not filter by job");
    check("job=~\\\"$job\\\"", "job=\\\"$job\\\"", "does not filter by job");
    check("sum by (job, database, error_type) (rate", "sum by (database, error_type) (rate", "it drops `job`");
    check("[$__rate_interval]", "[5m:5s]", "needs [$__rate_interval]");
    check("[$__rate_interval]", "[5m]", "needs [$__rate_interval]");
    check("[$__range]", "[15m]", "increase() needs");
    check("$__rate_interval", "$__rate_intervall", "there is no variable $__rate_intervall");
    check(
        "\"query\": \"label_values(batchsql_build_info, job)",
        "\"query\": \"label_values(batchsql_build_info, table)",
        "variable job: batchsql_build_info has no label table",
    );
    check(
        "\"label_values(batchsql_build_info, job)\",\n          \"refId\"",
        "\"query_result(up)\",\n          \"refId\"",
        "is not label_values",
    );
    check("* 1000", "* on (table) up", "annotation \"Ends of tests\"");
}

#[test]
fn the_structure_of_a_dashboard_is_checked() {
    let check = |from: &str, to: &str, expected: &str| check(DASHBOARD, from, to, expected);
    check("{", "", "it is not a dashboard");
    check(
        "\"title\": \"BatchSQL Performance Dashboard\"",
        "\"title\": \"Performance\"",
        "title: it is \"Performance\"",
    );
    check("\"uid\": \"batchsql-performance\"", "\"uid\": \"other\"", "uid: it is \"other\"");
    check("\"schemaVersion\": 39", "\"schemaVersion\": 27", "schemaVersion: 27 is older");
    check("\"annotations\": {", "\"__inputs\": [], \"annotations\": {", "does not ask for inputs");
    check("\"title\": \"Memory Usage\"", "\"title\": \"Memory\"", "Memory Usage: 0 panels have this title");
    check("\"title\": \"Buffer Fill\"", "\"title\": \"Memory Usage\"", "Memory Usage: 2 panels have this title");
    check("\"title\": \"Buffer Fill\"", "\"title\": \"Flush Reasons\"", "another panel has this title");
    check("\"title\": \"Buffer Fill\"", "\"title\": \"\"", "it has no title");
    check("\"id\": 2,", "\"id\": 3,", "another panel has id 3");
    check("\"id\": 2,", "", "it has no id");
    check("\"description\": \"Rows committed per second, of", "\"oldDescription\": \"", "it has no description");
    check("\"unit\": \"rowsps\"", "\"unit\": \"\"", "panel \"Rows Written per Second\": it has no unit");
    check(
        "\"uid\": \"${datasource}\"\n      },\n      \"description\"",
        "\"uid\": \"batchsql-prometheus\"\n      },\n      \"description\"",
        "use the variable",
    );
    check("\"unit\": \"rowsps\"", "\"unit\": \"rows/s\"", "unit \"rows/s\" is not one of");
    check(
        "\"unit\": \"percent\"",
        "\"unit\": \"percentunit\"",
        "panel \"Data Integrity Rate\": the integrity is from 0 to 100",
    );
    check("\"type\": \"timeseries\"", "\"type\": \"graph\"", "type \"graph\" is not one of");
    check("\"format\": \"heatmap\"", "\"format\": \"time_series\"", "format \"time_series\" does not fit a heatmap");
    check("\"refId\": \"B\"", "\"refId\": \"A\"", "refId \"A\" is empty or not unique");
    check("\"x\": 4,", "\"x\": 3,", "it overlaps panel \"Rows Written per Second\"");
    check("\"x\": 20,", "\"x\": 21,", "do not fit 24 columns");
    check("\"allValue\": \".*\"", "\"allValue\": \".+\"", "variable test_case: allValue is \".+\"");
    check("\"multi\": true", "\"multi\": false", "variable job: it must allow several values");
    check("\"name\": \"test_case\"", "\"name\": \"case\"", "there is no variable test_case");
    check("\"name\": \"datasource\"", "\"name\": \"source\"", "there is no variable datasource");
    check(
        "docs/runbooks/BatchSqlRowsLost.md",
        "docs/runbooks/Nothing.md",
        "docs/runbooks/Nothing.md is not in the repository",
    );
}

#[test]
fn a_panel_without_a_query_is_found() {
    let tree = Tree::copy();
    let text = std::fs::read_to_string(tree.path(DASHBOARD)).unwrap();
    let mut dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    dashboard["panels"][1]["targets"] = serde_json::json!([]);
    std::fs::write(tree.path(DASHBOARD), dashboard.to_string()).unwrap();
    says(&tree, "panel \"Rows Written per Second\": it has no query");
}

#[test]
fn rules_are_checked() {
    check(
        RECORDING,
        "rate(batchsql_errors_total[5m])",
        "rate(batchsql_error_total[5m])",
        "rule job_instance_database:batchsql_attempts:rate5m: there is no metric",
    );
    check(RECORDING, "sum by (le, job, database)", "sum by (le, database)", "it drops `job`");
    check(
        RECORDING,
        "- record: job_instance_database:batchsql_attempts:rate5m",
        "- record: batchsql_attempts:rate5m",
        "level:metric:operations",
    );
    check(
        RECORDING,
        "- record: job_database:batchsql_batch_execution_duration_seconds:p99_rate5m",
        "- record: job:batchsql_batch_execution_duration_seconds:p99_rate5m",
        "its level is job, its labels are database, job",
    );
    check(
        RECORDING,
        "- record: job_instance_database:batchsql_buffer_bytes:fill_ratio",
        "- record: job_instance_database:batchsql_buffer_records:fill_ratio",
        "another rule records this name",
    );
    check(
        RECORDING,
        "histogram_quantile(0.99,\n            sum by (le, job",
        "histogram_quantile(0.99,\n            sum by (job",
        "keep le",
    );
    check(RECORDING, "groups:", "grops:", "recording.yml: it has no rules");
    check(RECORDING, "- record:", "record:", "recording.yml: it cannot be read");
    check(
        RECORDING,
        "      - record: job_instance_database:batchsql_attempts",
        "      - unknown: job_instance_database:batchsql_attempts",
        "either a record or an alert",
    );
}

#[test]
fn alerts_are_checked() {
    check(
        ALERTS,
        "max by (job, instance, database) (batchsql_parked_tables)",
        "max by (job, table) (batchsql_parked_tables)",
        "alert BatchSqlTableParked: the operand of max has no label table",
    );
    check(
        ALERTS,
        "job_instance_database:batchsql_attempt_failures:ratio_rate5m",
        "job_instance_database:batchsql_attempt_failure:ratio_rate5m",
        "alert BatchSqlFailureRatioHigh: there is no metric",
    );
    check(ALERTS, "severity: warning", "severity: page", "severity \"page\" has no route");
    check(ALERTS, "severity: warning", "team: db", "it has no severity");
    check(
        ALERTS,
        "          summary: 'test {{ $labels.test_case }} failed",
        "          title: 'test {{ $labels.test_case }} failed",
        "alert BatchSqlTestFailed: it has no summary",
    );
    check(ALERTS, "description: >-", "text: >-", "it has no description");
    check(ALERTS, "          runbook_url: https", "          url: https", "it has no runbook_url");
    check(
        ALERTS,
        "docs/runbooks/BatchSqlStalled.md",
        "docs/runbooks/Stalled.md",
        "alert BatchSqlStalled: runbook_url is",
    );
    check(ALERTS, "- alert: BatchSqlStalled", "- alert: batchsql_stalled", "is not in CamelCase");
    check(ALERTS, "- alert: BatchSqlStalled", "- alert: BatchSqlTestFailed", "another alert has this name");
    check(
        ALERTS,
        "'{{ $labels.database }}: rows of {{ $labels.instance }}",
        "'{{ $labels.table }}: rows of {{ $labels.instance }}",
        "alert BatchSqlStalled, summary: $labels.table is always empty",
    );
    let query = "{{ with query \"sum(batchsql_parked_table)\" }}{{ . }}{{ end }} rows of {{ $labels.instance }}";
    check(
        ALERTS,
        "'{{ $labels.database }}: rows of {{ $labels.instance }}",
        &format!("'{query}"),
        "summary: there is no metric batchsql_parked_table;",
    );
}

#[test]
fn every_rule_needs_both_kinds_of_test() {
    let tree = Tree::copy();
    tree.append(ALERTS, "\n      - alert: Untested\n        expr: up == 0\n");
    tree.append(RECORDING, "\n      - record: job_instance:up:max\n        expr: max by (job, instance) (up)\n");
    for expected in [
        "alert Untested: no test shows it firing",
        "alert Untested: no test shows it quiet",
        "rule job_instance:up:max: no test shows it firing",
        "rule job_instance:up:max: no test shows it quiet",
    ] {
        says(&tree, expected);
    }
    check(TESTS, "tests:", "tets:", "recording.yml: it has no tests");
    check(TESTS, "tests:", "tests: {", "recording.yml: it cannot be read");
}

#[test]
fn what_is_recorded_is_used() {
    let tree = Tree::copy();
    tree.append(RECORDING, "\n      - record: job_instance:up:max\n        expr: max by (job, instance) (up)\n");
    says(&tree, "recording.yml: rule job_instance:up:max: no alert, rule or panel uses it");
}

#[test]
fn jobs_and_alerts_that_a_query_names_are_there() {
    check("monitoring/prometheus.prod.yml", "job_name: batchsql-app", "job_name: [", "it cannot be read");
    check(DASHBOARD, "ALERTS{alertstate=", "ALERTS{alertname=\\\"BatchSqlNothing\\\", alertstate=", "BatchSqlStalled");
    check(
        "monitoring/rules/prod/alerts.yml",
        "up{job=\"batchsql-app\"}",
        "up{job=\"batchsql-ap\"}",
        "has no job=\"batchsql-ap\"",
    );
}

#[test]
fn an_alert_has_a_runbook_and_a_runbook_an_alert() {
    let tree = Tree::copy();
    tree.remove(RUNBOOK);
    says(&tree, "alert BatchSqlStalled: it has no runbook; write docs/runbooks/BatchSqlStalled.md");
    tree.append("docs/runbooks/Forgotten.md", "# Forgotten\n");
    says(&tree, "docs/runbooks/Forgotten.md: there is no alert of this name");
    check(RUNBOOK, "# BatchSqlStalled", "# Stalled", "its first line is not `# BatchSqlStalled`");
    check(RUNBOOK, "## Impact\n", "", "its sections are Meaning, How to check");
    check(RUNBOOK, "batchsql_inflight_batches", "batchsql_inflight_batch", "did you mean batchsql_inflight_batches?");
}

#[test]
fn queries_of_documents_are_checked() {
    let document = |text: &str, expected: &str| {
        let tree = Tree::copy();
        tree.append("docs/more.md", text);
        says(&tree, expected);
    };
    document("```promql\nrate(batchsql_error_total[5m])\n```\n", "docs/more.md: line 2: there is no metric");
    document(
        "a\n```promql wrong\nrate(batchsql_errors_total[5m])\n```\n",
        "docs/more.md: line 3: it is marked `promql wrong`",
    );
    document("```promql\nsum(batchsql_errors_total\n```\n", "cannot be parsed");
}

#[test]
fn a_metric_that_nobody_uses_is_found() {
    let tree = Tree::copy();
    let text = std::fs::read_to_string(tree.path(DASHBOARD)).unwrap();
    std::fs::write(tree.path(DASHBOARD), text.replace("batchsql_gc_count", "up")).unwrap();
    says(&tree, "catalogue.rs: batchsql_gc_count: no panel and no rule uses it");
}

#[test]
fn a_tree_without_dashboards_is_not_in_order() {
    let tree = Tree::copy();
    tree.remove(DASHBOARD);
    says(&tree, "there is no dashboard");
}
