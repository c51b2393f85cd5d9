//! Packages of Debian and Ubuntu, installed by apt.
//! Must not know what needs them.

use std::{env, process::Command};

use super::{account, find};
use crate::interrupt;

/// How this program may install packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    AsRoot,
    /// Only in CI: on a person's machine nothing asks for more rights than it was given.
    WithSudo,
}

/// Why it may not, as the end of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Forbidden,
    NoApt,
    NoRights,
}

impl Refusal {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Forbidden => "--no-install forbids to install it",
            Self::NoApt => "it cannot be installed from here: this system has no apt-get",
            Self::NoRights => "it can be installed from here only by root",
        }
    }
}

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

/// In CI nothing that is missing may be passed over.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

/// Installs packages, and says so. What could not be installed is still missing afterwards.
pub(crate) fn install(way: Way, packages: &[&str]) {
    eprintln!("==> install what is missing");
    eprintln!("installing with apt-get: {}; their services are not started", packages.join(", "));
    eprintln!("(`--no-install` forbids it)");
    let shell: &[&str] = match way {
        Way::AsRoot => &["sh"],
        Way::WithSudo => &["sudo", "-n", "sh"],
    };
    let script = include_str!("install.sh");
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", script, "install"]).args(packages);
    // The output of this program may be read by another one.
    command.stdout(std::io::stderr());
    if let Err(error) = interrupt::status(&mut command) {
        eprintln!("cannot start {}: {error}", shell[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
