//! What this repository ships passes.

use batchsql_monitoring::lint;

use crate::tree::root;

#[test]
fn the_shipped_files_have_no_findings() {
    let report = lint(&root()).unwrap();
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, [""; 0]);
    // It looked: a renamed folder would be empty, and in order.
    assert!(report.files > 40 && report.rules >= 30 && report.queries > 100, "{report:?}");
}
