//! Tools and toolchains that only some checks need, and how to install them.
//! Must not know those checks.

use std::process::Command;

use crate::cargo;

/// The toolchain for what only nightly can do.
pub(super) const NIGHTLY: &str = "nightly";

/// Where builds of nightly go. Another compiler in the usual folder would rebuild everything there.
pub(super) const NIGHTLY_TARGET: &str = "target/nightly";

/// How to install `cargo <subcommand>`.
pub(super) fn advice(subcommand: &str) -> String {
    format!("cargo-{subcommand} is not installed; install it with `cargo install --locked cargo-{subcommand}`")
}

/// Fails with advice when `cargo <subcommand>` is not installed.
///
/// # Errors
/// It is not installed.
pub(super) fn require(subcommand: &str) -> anyhow::Result<()> {
    anyhow::ensure!(cargo::has_subcommand(subcommand), advice(subcommand));
    Ok(())
}

/// The cargo of another toolchain, at the workspace root.
///
/// # Errors
/// The toolchain is not installed.
pub(super) fn cargo_of(toolchain: &str) -> anyhow::Result<Command> {
    let of_rustup = || {
        let mut command = Command::new("rustup");
        command.args(["run", toolchain, "cargo"]).current_dir(cargo::workspace_root());
        // Rustup and cargo tell their own toolchain with these.
        command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env("RUSTUP_AUTO_INSTALL", "0");
        cargo::forget_this_package(&mut command);
        command
    };
    let is_installed = of_rustup().arg("--version").output().is_ok_and(|output| output.status.success());
    anyhow::ensure!(
        is_installed,
        "the Rust toolchain {toolchain} is not installed; install it with \
         `rustup toolchain install {toolchain} --profile minimal`"
    );
    Ok(of_rustup())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_toolchain_is_named_with_the_command_that_installs_it() {
        let error = cargo_of("1.0.0-of-no-channel").unwrap_err().to_string();
        assert!(error.contains("rustup toolchain install 1.0.0-of-no-channel"), "{error}");
    }

    #[test]
    fn a_missing_tool_is_named_with_the_command_that_installs_it() {
        let error = require("tool-of-nobody").unwrap_err().to_string();
        assert!(error.contains("cargo install --locked cargo-tool-of-nobody"), "{error}");
    }
}
