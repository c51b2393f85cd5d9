//! Owns the way to the example service and to programs of this machine, and the secrets that they share.
//! Must not know what is checked.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The service on any free port.
pub(crate) fn service() -> Command {
    let mut command = example("monitored_app");
    command.env("PROMETHEUS_PORT", "0");
    command
}

/// An example, with nothing else from the environment of the test. Cargo does not show tests the path of examples, and
/// builds them only when no kind of target is named.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let examples = test.ancestors().nth(2).expect("tests are in target/…/deps").join("examples");
    let program = examples.join(name);
    let advice = "build it with `cargo build -p batchsql --all-features --examples`";
    assert!(program.exists(), "{} is not there; {advice}", program.display());
    let mut command = Command::new(program);
    command.env_clear().env("TMPDIR", std::env::temp_dir());
    command
}

/// What `docker/secrets/make.sh` makes for production.
pub(crate) fn secrets() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    make_secrets(folder.path());
    folder
}

/// Lets the script make what is missing in a folder.
pub(crate) fn make_secrets(folder: &Path) {
    let made = run_make_secrets(folder);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The same, whatever its exit status is.
pub(crate) fn run_make_secrets(folder: &Path) -> Output {
    let script = Path::new(ROOT).join("docker/secrets/make.sh");
    Command::new("sh").arg(script).arg(folder).output().unwrap()
}

/// The first of these programs that exists, unless `variable` lets the test be skipped without it.
pub(crate) fn program(names: &[&str], variable: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let in_folders =
        |name: &&str| std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|it| it.is_file());
    let found = names.iter().find_map(in_folders);
    if found.is_none() {
        let is_required = std::env::var_os(variable).is_some_and(|value| value == "1");
        assert!(!is_required, "{} is not in PATH, and {variable} requires it", names[0]);
        eprintln!("skipped: {} is not in PATH", names[0]);
    }
    found
}
