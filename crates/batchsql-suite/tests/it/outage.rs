//! Owns the checks of the measurement of an outage: small logs, at least once and exactly once, and no file that stays.
//! Must not know how it is measured.

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Runs it in a folder for temporary files of its own; its figures.
fn outage(args: &[&str]) -> (Value, Output) {
    let folder = TempDir::new().unwrap();
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    // The program of a server may run as another user.
    std::fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = folder.path().join("outage.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_batchsql-bench"));
    command.arg("outage").args(args).arg("--json").arg(&file).env("TMPDIR", &temporary);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("no figures: {error}: {text}"));
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?} are left");
    (serde_json::from_str(&json).unwrap(), output)
}

#[track_caller]
fn is_drained(args: &[&str]) {
    const MIB: u64 = 6;
    let (figures, output) = outage(&[args, &["--bytes", &format!("{MIB}MiB")]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let number = |name: &str| figures[name].as_u64().unwrap();
    assert!(number("log_bytes") >= MIB << 20, "{figures}");
    // About a KiB each. The log may be larger by what was under way.
    assert!((MIB * 900..MIB * 3_000).contains(&number("rows")), "{figures}");
    assert_eq!(number("doubled"), 0, "{figures}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("rows per second") && text.contains("0 of them doubled"), "{text}");
    #[cfg(target_os = "linux")]
    assert!(figures["memory"].as_array().unwrap().iter().all(|bytes| bytes.as_u64().unwrap() > 1 << 20), "{figures}");
}

#[test]
fn what_waits_for_a_server_is_written_exactly_once_when_it_is_back() {
    is_drained(&["--db", "postgres", "--exactly-once"]);
}

#[test]
fn what_waits_for_a_file_is_written_when_it_is_unlocked() {
    is_drained(&["--db", "sqlite"]);
}

#[test]
fn requests_that_cannot_be_measured_are_refused() {
    let refused = |args: &[&str], word: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_batchsql-bench")).arg("outage").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(word), "{text}");
    };
    refused(&["--db", "postgres,mysql"], "one database");
    refused(&["--db", "redis"], "--db postgres,mysql,sqlite");
    refused(&["--bytes", "much"], "5GiB");
}
