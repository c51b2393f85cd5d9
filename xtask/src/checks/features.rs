//! `cargo xtask features`: each feature of each published package alone.
//! Must not know the features: cargo-hack reads them from the manifests.

use std::process::ExitCode;

use super::tool;
use crate::{cargo, steps::Steps};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    tool::require("hack")?;
    let mut steps = Steps::default();
    let mut command = cargo::command();
    // Clippy, because a warning of an unused import is often the only sign of a missing `cfg`.
    command.args(["hack", "clippy", "--workspace", "--ignore-private", "--each-feature", "--keep-going"]);
    command.args(["--", "-D", "warnings"]);
    steps.run("each feature alone", command);
    Ok(steps.finish())
}
