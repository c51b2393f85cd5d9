//! `cargo xtask deny`: licences, sources, forbidden dependencies and security advisories. `lint` has the same steps.
//! Must not know any rule: they are in deny.toml.

use std::process::ExitCode;

use super::tool;
use crate::{cargo, steps::Steps};

const TOOL: &str = "deny";

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    tool::require(TOOL)?;
    let mut steps = Steps::default();
    check(&mut steps);
    Ok(steps.finish())
}

/// The steps, or a skipped one where cargo-deny is not installed.
pub(crate) fn check_if_installed(steps: &mut Steps) {
    if cargo::has_subcommand(TOOL) {
        check(steps);
    } else {
        steps.skip(TOOL, tool::advice(TOOL));
    }
}

/// Two steps, because without a network only the advisories cannot be had.
fn check(steps: &mut Steps) {
    for (title, checks) in [(TOOL, &["bans", "licenses", "sources"][..]), ("advisories", &["advisories"])] {
        let mut command = cargo::command();
        command.args([TOOL, "check"]).args(checks);
        steps.run(title, command);
    }
}
