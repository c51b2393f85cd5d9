//! `cargo xtask cross`: the libraries build for another target, for example Windows from Linux. Nothing is run.
//! Must not know the targets: people and workflows name them.

use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::{cargo, steps::Steps, workspace};

#[derive(Debug, clap::Args)]
#[command(after_help = "SQLite and ring are compiled from C, so a C compiler for the target is needed: the packages \
                        `gcc-mingw-w64-x86-64` (x86_64-pc-windows-gnu) and `gcc-aarch64-linux-gnu` \
                        (aarch64-unknown-linux-gnu) of Debian and Ubuntu. No linker is needed.")]
pub(crate) struct Arguments {
    /// The target, as rustc calls it
    #[arg(long, value_name = "TARGET")]
    target: String,
}

pub(crate) fn run(Arguments { target }: Arguments) -> anyhow::Result<ExitCode> {
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "list", "--installed"]).current_dir(cargo::workspace_root());
    let installed = rustup.output().context("cannot start rustup")?;
    let is_installed = String::from_utf8_lossy(&installed.stdout).lines().any(|line| line.trim() == target);
    anyhow::ensure!(is_installed, "the target {target} is not installed; install it with `rustup target add {target}`");
    let libraries = workspace::libraries()?;
    let mut command = cargo::command();
    command.args(["build", "--lib", "--all-features", "--target", &target]).args(workspace::arguments(&libraries));
    let mut steps = Steps::default();
    steps.run(format!("libraries for {target}"), command);
    Ok(steps.finish())
}
