//! `cargo xtask public-api`: the public API of each library as text in `docs/public-api`, so that a review sees each change.
//! Must not know how the text is made: cargo-public-api does it, from what nightly's rustdoc says.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context;

use super::tool;
use crate::{cargo, steps::Steps, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write the texts in place of comparing them
    #[arg(long)]
    bless: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    tool::require("public-api")?;
    tool::cargo_of(tool::NIGHTLY)?;
    let folder = cargo::workspace_root().join("docs/public-api");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut steps = Steps::brief();
    for package in workspace::libraries()? {
        let name = package.name.as_str();
        let found = api(name).with_context(|| format!("cannot list the public API of {name}"))?;
        let file = folder.join(name).with_extension("txt");
        if arguments.bless {
            fs::write(&file, &found).with_context(|| format!("cannot write {}", file.display()))?;
        }
        match differences(&fs::read_to_string(&file).unwrap_or_default(), &found) {
            differences if differences.is_empty() => steps.holds(name, format!("{} lines", found.lines().count())),
            differences => {
                differences.iter().for_each(|line| say!("{line}"));
                steps.impossible(name, "differs from docs/public-api; write it with `cargo xtask public-api --bless`");
            }
        }
    }
    Ok(steps.finish())
}

fn api(package: &str) -> anyhow::Result<String> {
    let target = Path::new(tool::NIGHTLY_TARGET);
    let mut command = cargo::command();
    command.args(["public-api", "--all-features", "-sss", "--color", "never", "--package", package]);
    // Cargo-public-api calls nightly itself unless a toolchain was named.
    command.arg("--target-dir").arg(target).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    let output = command.output().context("cannot start cargo")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).context("the text is not UTF-8")
}

/// Lines that only one text has: first those that went, then those that came.
fn differences(kept: &str, found: &str) -> Vec<String> {
    let only = |of: &str, than: &str, sign| {
        let others: std::collections::BTreeSet<_> = than.lines().collect();
        of.lines().filter(|line| !others.contains(line)).map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    [only(kept, found, '-'), only(found, kept, '+')].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_api_is_shown() {
        assert!(differences("pub fn a()\npub fn b()\n", "pub fn a()\npub fn b()\n").is_empty());
        let shown = differences("pub fn a()\npub fn b()\n", "pub fn b()\npub fn c()\n");
        assert_eq!(shown, ["- pub fn a()", "+ pub fn c()"]);
    }
}
