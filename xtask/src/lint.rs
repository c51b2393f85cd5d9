//! `cargo xtask lint`: format, clippy, documentation, dependencies.
//! Must not know any rule: the rules are in rustfmt.toml, clippy.toml, Cargo.toml and deny.toml.

use std::process::{Command, ExitCode};

use crate::{cargo, steps::Steps};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let mut steps = Steps::default();
    steps.run("fmt", cargo(&["fmt", "--all", "--check"]));
    steps.run("clippy", cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]));
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    steps.run("doc", doc);
    if cargo::has_subcommand("deny") {
        // Two steps, because without a network only the advisories cannot be had.
        steps.run("deny", cargo(&["deny", "check", "bans", "licenses", "sources"]));
        steps.run("advisories", cargo(&["deny", "check", "advisories"]));
    } else {
        steps.skip("deny", "cargo-deny is not installed; install it with `cargo install --locked cargo-deny`");
    }
    Ok(steps.finish())
}

fn cargo(args: &[&str]) -> Command {
    let mut command = cargo::command();
    command.args(args);
    command
}
