//! Packages of Debian and Ubuntu, installed by apt.
//! Must not know which program needs them.

use std::{env, process::Command};

use super::{account, find};
use crate::interrupt;

/// How this program may install packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    AsRoot,
    /// Only in CI: on a developer's machine this program does not use sudo.
    WithSudo,
}

/// Why it may not install, as the end of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Forbidden,
    NoApt,
    NoRights,
}

impl Refusal {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Forbidden => "--no-install forbids its installation",
            Self::NoApt => "it cannot be installed automatically: this system has no apt-get",
            Self::NoRights => "it can be installed automatically only by root",
        }
    }
}

const SCRIPT: &str = include_str!("install.sh");

/// The program that package scripts ask whether they may start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// How packages can be installed here.
pub(crate) fn way(may_install: bool) -> Result<Way, Refusal> {
    decide(may_install, find::program(&["apt-get"]).is_some(), account::is_root(), is_ci())
}

fn decide(may_install: bool, has_apt: bool, root: bool, ci: bool) -> Result<Way, Refusal> {
    match (may_install, has_apt, root, ci) {
        (false, ..) => Err(Refusal::Forbidden),
        (_, false, ..) => Err(Refusal::NoApt),
        (.., true, _) => Ok(Way::AsRoot),
        (.., true) => Ok(Way::WithSudo),
        _ => Err(Refusal::NoRights),
    }
}

/// Whether this is CI, where missing programs are errors.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

/// Installs packages and prints a note. If the installation fails, the programs are still missing afterwards.
pub(crate) fn install(way: Way, packages: &[&str]) {
    eprintln!("==> install missing packages");
    eprintln!("installing with apt-get: {}; their services are not started", packages.join(", "));
    eprintln!("(`--no-install` forbids it)");
    let shell: &[&str] = match way {
        Way::AsRoot => &["sh"],
        Way::WithSudo => &["sudo", "-n", "sh"],
    };
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", SCRIPT, "install", POLICY]).args(packages);
    // Another program may read the standard output of this one.
    command.stdout(std::io::stderr());
    if let Err(error) = interrupt::status(&mut command) {
        eprintln!("cannot start {}: {error}", shell[0]);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{fs::PermissionsExt, process::ExitStatusExt},
        path::{Path, PathBuf},
        process::{ExitStatus, Stdio},
    };

    use super::*;
    use crate::servers::{Account, Keeper};

    /// A folder with a fake `apt-get` and a fake policy.
    struct Place(Keeper);

    impl Place {
        fn new(apt: &str) -> Self {
            let keeper = Keeper::new("test", Account::Caller, "TERM").unwrap();
            let program = keeper.folder().join("apt-get");
            keeper.write("apt-get", &format!("#!/bin/sh\n{apt}\n")).unwrap();
            fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
            Self(keeper)
        }

        fn policy(&self) -> PathBuf {
            self.0.folder().join("policy")
        }

        fn install(&self) -> ExitStatus {
            let path = format!("{}:{}", self.0.folder().display(), env::var("PATH").unwrap());
            let mut shell = Command::new("sh");
            shell.args(["-c", SCRIPT, "install"]).arg(self.policy()).arg("package");
            shell.env("PATH", path).env("POLICY", self.policy()).stdout(Stdio::null()).status().unwrap()
        }
    }

    fn says_no(policy: &Path) -> bool {
        Command::new(policy).status().is_ok_and(|status| status.code() == Some(101))
    }

    #[test]
    fn no_service_is_started_while_packages_are_installed() {
        let place = Place::new(r#"[ "$1" = update ] || { "$POLICY"; [ "$?" = 101 ]; }"#);
        assert!(place.install().success());
        assert!(!place.policy().exists());
    }

    #[test]
    fn the_policy_of_one_that_was_killed_is_removed() {
        let killed = Place::new("kill -9 $PPID");
        assert_eq!(killed.install().signal(), Some(9));
        assert!(says_no(&killed.policy()));
        let next = Place::new(":");
        fs::copy(killed.policy(), next.policy()).unwrap();
        assert!(next.install().success());
        assert!(!next.policy().exists());
    }

    #[test]
    fn the_policy_of_somebody_else_stays() {
        let text = |pid: &str| {
            let killed = Place::new("kill -9 $PPID");
            killed.install();
            let text = fs::read_to_string(killed.policy()).unwrap();
            let (before, _) = text.trim_end().rsplit_once("\nexit").unwrap();
            let words = before.trim_end_matches(|digit: char| digit.is_ascii_digit());
            format!("{words}{pid}\nexit 101\n")
        };
        // The policy of an administrator, and that of a run in progress.
        for policy in ["#!/bin/sh\nexit 101\n".to_owned(), text(&std::process::id().to_string())] {
            let place = Place::new(":");
            fs::write(place.policy(), &policy).unwrap();
            assert!(place.install().success());
            assert_eq!(fs::read_to_string(place.policy()).unwrap(), policy);
        }
    }

    #[test]
    fn installing_needs_permission_apt_and_rights() {
        let check = |may_install, has_apt, root, ci, expected| {
            assert_eq!(decide(may_install, has_apt, root, ci), expected);
        };
        check(false, true, true, true, Err(Refusal::Forbidden));
        check(true, true, true, false, Ok(Way::AsRoot));
        check(true, true, true, true, Ok(Way::AsRoot));
        check(true, true, false, true, Ok(Way::WithSudo));
        check(true, true, false, false, Err(Refusal::NoRights));
        check(true, false, true, true, Err(Refusal::NoApt));
    }
}
