//! Makes sure that promtool is there for the tests that check rules and metrics with it.
//! Must not know those tests.

use std::{
    env,
    process::{Command, Stdio},
};

use crate::steps;

/// What the tests can expect.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Promtool {
    Present,
    /// Missing, and the tests that need it may be skipped: what to do about it.
    Optional(String),
    /// Missing, and this is CI, where no test may be skipped: what to do about it.
    Required(String),
}

/// Looks for promtool and installs it when it is missing, `may_install` allows it, and the system can.
pub(crate) fn ensure(may_install: bool) -> Promtool {
    if present() {
        return Promtool::Present;
    }
    let ci = env::var_os("CI").is_some_and(|value| value == "true");
    let shell: &[&str] = match way_to_install(may_install, ci, has_program("apt-get"), is_root()) {
        Way::Forbidden => return missing("promtool is missing and --no-install forbids to install it", ci),
        Way::Unknown => return missing("promtool is missing and cannot be installed from here", ci),
        Way::AsRoot => &["sh"],
        Way::WithSudo => &["sudo", "-n", "sh"],
    };
    if install(shell) && present() {
        return Promtool::Present;
    }
    missing("promtool is missing and installing it failed, see above", ci)
}

#[derive(Debug, PartialEq, Eq)]
enum Way {
    Forbidden,
    Unknown,
    AsRoot,
    /// Only in CI: on a person's machine nothing asks for more rights than it was given.
    WithSudo,
}

fn way_to_install(may_install: bool, ci: bool, has_apt: bool, root: bool) -> Way {
    match (may_install, has_apt, root, ci) {
        (false, ..) => Way::Forbidden,
        (true, true, true, _) => Way::AsRoot,
        (true, true, false, true) => Way::WithSudo,
        (true, ..) => Way::Unknown,
    }
}

fn missing(why_not: &str, ci: bool) -> Promtool {
    let what = "install the package `prometheus` (Debian, Ubuntu, Homebrew), or put promtool of a Prometheus \
                release into PATH";
    if ci {
        Promtool::Required(format!("{why_not}; {what}"))
    } else {
        Promtool::Optional(format!("{why_not}; the tests that need it are skipped; {what}"))
    }
}

fn install(shell: &[&str]) -> bool {
    steps::heading("install promtool");
    println!("promtool is missing: installing the package `prometheus` with apt-get; its daemon is not started");
    println!("(`cargo xtask test --no-install` goes on without it)");
    let script = include_str!("install-promtool.sh");
    let status = Command::new(shell[0]).args(&shell[1..]).args(["-c", script]).status();
    status.is_ok_and(|status| status.success())
}

fn present() -> bool {
    has_program("promtool")
}

fn has_program(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_needs_permission_apt_and_rights() {
        let check = |may_install, ci, has_apt, root, expected| {
            assert_eq!(way_to_install(may_install, ci, has_apt, root), expected);
        };
        check(false, true, true, true, Way::Forbidden);
        check(true, false, true, true, Way::AsRoot);
        check(true, true, true, true, Way::AsRoot);
        check(true, true, true, false, Way::WithSudo);
        check(true, false, true, false, Way::Unknown);
        check(true, true, false, true, Way::Unknown);
    }

    #[test]
    fn only_ci_insists() {
        assert!(matches!(missing("it is missing", false), Promtool::Optional(_)));
        assert!(matches!(missing("it is missing", true), Promtool::Required(_)));
    }
}
