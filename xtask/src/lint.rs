//! `cargo xtask lint`: format, clippy, documentation, imports, dependencies.
//! Must not know any rule: the rules are in rustfmt.toml, clippy.toml, Cargo.toml and deny.toml.

use std::process::{Command, ExitCode};

use crate::{
    cargo,
    checks::deny,
    imports::{self, Findings},
    steps::Steps,
};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let mut steps = Steps::default();
    steps.run("fmt", cargo(&["fmt", "--all", "--check"]));
    imports(&mut steps);
    steps.run("clippy", cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]));
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    steps.run("doc", doc);
    deny::check_if_installed(&mut steps);
    Ok(steps.finish())
}

/// Checks that there are no import cycles between files or folders.
fn imports(steps: &mut Steps) {
    const TITLE: &str = "imports";
    match imports::workspace() {
        Ok(Findings { crates, files, circles }) if circles.is_empty() => {
            steps.holds(TITLE, format!("no cycle in {crates} crates, {files} files"));
        }
        Ok(Findings { crates, files, circles }) => {
            for circle in &circles {
                say!("{circle}");
            }
            let number = circles.len();
            steps.impossible(TITLE, format!("{number} cycles in {crates} crates, {files} files, see above"));
        }
        Err(error) => steps.impossible(TITLE, format!("{error:#}")),
    }
}

fn cargo(args: &[&str]) -> Command {
    let mut command = cargo::command();
    command.args(args);
    command
}
