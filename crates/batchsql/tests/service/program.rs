//! Owns the way to the example service, and the secrets that it and its watchers share.
//! Must not know what is checked.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The service on any free port, with nothing else from the environment of the test. Cargo builds examples together
/// with tests, but does not tell tests where they are.
pub(crate) fn service() -> Command {
    let test = std::env::current_exe().unwrap();
    let examples = test.ancestors().nth(2).expect("tests are in target/…/deps").join("examples");
    let program = examples.join("monitored_app");
    assert!(program.exists(), "{} is not there; `cargo test` without --test builds it", program.display());
    let mut command = Command::new(program);
    command.env_clear().env("TMPDIR", std::env::temp_dir()).env("PROMETHEUS_PORT", "0");
    command
}

/// What `docker/secrets/make.sh` makes for production.
pub(crate) fn secrets() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(ROOT).join("docker/secrets/make.sh");
    let made = Command::new("sh").arg(script).arg(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}
