//! Owns the check of a page of metrics with promtool.
//! Must not know which metrics there are.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

/// Set to 1, a missing promtool is an error.
const REQUIRE_PROMTOOL: &str = "BATCHSQL_REQUIRE_PROMTOOL";

/// Checks a page with `promtool check metrics`, which objects to three names that are required, and to nothing else. Without promtool it
/// does nothing and says so.
///
/// # Panics
/// promtool objects to something else, or is missing where `BATCHSQL_REQUIRE_PROMTOOL` is 1.
pub fn promtool_objects_to_the_three_known_names_only(page: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let required = std::env::var_os(REQUIRE_PROMTOOL).is_some_and(|value| value == "1");
            assert!(!required, "promtool is not on the PATH; install it (Debian package prometheus)");
            eprintln!("skipped: promtool is not on the PATH; set {REQUIRE_PROMTOOL}=1 to make this an error");
            return;
        }
        Err(error) => panic!("promtool cannot be started: {error}"),
    };
    promtool.stdin.take().expect("stdin is piped").write_all(page.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("promtool writes text");
    let names: BTreeSet<&str> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
    // Required names, although they break the rules.
    let known = BTreeSet::from(["batchsql_gc_count", "batchsql_memory_usage_mb", "batchsql_test_records_total"]);
    assert_eq!(names, known, "promtool said:\n{said}");
}
