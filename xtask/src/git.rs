//! Owns the calls of `git` in this workspace.
//! Must not know what they are for.

use std::process::Command;

use anyhow::Context;

use crate::cargo;

/// What a command of git prints.
///
/// # Errors
/// Git is missing, or the command fails; the error shows what git says.
pub(crate) fn output(arguments: &[&str]) -> anyhow::Result<String> {
    let mut git = Command::new("git");
    git.args(arguments).current_dir(cargo::workspace_root());
    let output = git.output().context("cannot start git")?;
    anyhow::ensure!(
        output.status.success(),
        "git {}: {}",
        arguments[0],
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
