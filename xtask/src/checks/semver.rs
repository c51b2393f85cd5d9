//! `cargo xtask semver`: the public API against that of the last release, by the rules of semantic versioning.
//! Must not know those rules: cargo-semver-checks has them.

use std::process::ExitCode;

use super::tool;
use crate::{cargo, git, steps::Steps, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The revision of git to compare with, in place of the last tag `v*`
    #[arg(long, value_name = "REVISION")]
    baseline: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    const TITLE: &str = "semantic versioning";
    let mut steps = Steps::default();
    let Some(baseline) = arguments.baseline.or_else(last_release) else {
        steps.skip(TITLE, "there is no release yet (no tag `v*`); name a revision with --baseline");
        return Ok(steps.finish());
    };
    tool::require("semver-checks")?;
    let packages = workspace::libraries()?;
    let mut command = cargo::command();
    command.args(["semver-checks", "--all-features", "--baseline-rev", &baseline]);
    command.args(workspace::arguments(&packages));
    steps.run(format!("{TITLE} against {baseline}"), command);
    Ok(steps.finish())
}

fn last_release() -> Option<String> {
    // An error: no release was tagged, or this is no clone.
    let tag = git::output(&["describe", "--tags", "--abbrev=0", "--match", "v*"]).ok()?;
    Some(tag.trim().to_owned()).filter(|tag| !tag.is_empty())
}
