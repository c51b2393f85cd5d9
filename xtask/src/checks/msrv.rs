//! `cargo xtask msrv`: the workspace builds with the oldest Rust that it promises (`rust-version` in Cargo.toml).
//! Must not know that version.

use std::process::ExitCode;

use anyhow::Context;
use cargo_metadata::semver::Version;

use super::tool;
use crate::{steps::Steps, workspace};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let packages = workspace::packages()?;
    let promised = packages.iter().find_map(|package| package.rust_version.as_ref());
    let toolchain = toolchain(promised.context("no package has a `rust-version`")?);
    let mut command = tool::cargo_of(&toolchain)?;
    command.args(["check", "--locked", "--workspace", "--all-features", "--target-dir", "target/msrv"]);
    let mut steps = Steps::default();
    steps.run(format!("check with Rust {toolchain}"), command);
    Ok(steps.finish())
}

/// The name of a version for rustup: 1.89 is the newest of 1.89.0, 1.89.1, and so on.
fn toolchain(version: &Version) -> String {
    match version.patch {
        0 => format!("{}.{}", version.major, version.minor),
        _ => version.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustup_knows_the_name() {
        assert_eq!(toolchain(&Version::new(1, 89, 0)), "1.89");
        assert_eq!(toolchain(&Version::new(1, 89, 2)), "1.89.2");
    }
}
