//! `cargo xtask package`: the published packages are complete, and build from nothing but their own files.
//! Must not know an order: cargo lets packages that are packed together find each other.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::Context;
use cargo_metadata::Package;

use crate::{cargo, steps::Steps, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Pack files that are not committed
    #[arg(long)]
    allow_dirty: bool,
    /// Do not build the packages
    #[arg(long)]
    no_verify: bool,
    /// Arguments for `cargo package`
    #[arg(last = true, value_name = "CARGO PACKAGE ARGS")]
    cargo_args: Vec<OsString>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut steps = Steps::default();
    let packages = workspace::published()?;
    let mut mistakes = Vec::new();
    for package in &packages {
        mistakes.extend(complaints(package, &files(package)?));
    }
    if mistakes.is_empty() {
        steps.holds("metadata and files", format!("{} packages", packages.len()));
    } else {
        mistakes.iter().for_each(|mistake| say!("{mistake}"));
        steps.impossible("metadata and files", format!("{} mistakes, see above", mistakes.len()));
    }
    let mut command = command(&packages);
    command.args(arguments.allow_dirty.then_some("--allow-dirty"));
    command.args(arguments.no_verify.then_some("--no-verify")).args(&arguments.cargo_args);
    steps.run("package", command);
    Ok(steps.finish())
}

/// Packs all packages and builds them from their own files.
pub(crate) fn command(packages: &[Package]) -> Command {
    let mut command = cargo::command();
    command.args(["package", "--locked"]).args(workspace::arguments(packages));
    command
}

/// The paths in a package, from its root.
fn files(package: &Package) -> anyhow::Result<Vec<String>> {
    let mut command = cargo::command();
    command.args(["package", "--list", "--allow-dirty", "--package", &package.name]);
    let output = command.output().context("cannot start cargo")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "cannot list the files of {}: {}", package.name, errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// What a registry refuses, and what a reader of its page would miss.
fn complaints(package: &Package, files: &[String]) -> Vec<String> {
    let name = &package.name;
    let mut complaints = Vec::new();
    for file in ["LICENSE-APACHE", "LICENSE-MIT", "README.md"] {
        if !files.iter().any(|found| found == file) {
            complaints.push(format!("{name} has no file {file}"));
        }
    }
    for (missing, what) in [
        (package.description.is_none(), "description"),
        (package.license.is_none(), "license"),
        (package.readme.is_none(), "readme"),
        (package.rust_version.is_none(), "rust-version"),
        (package.categories.is_empty(), "categories"),
        (package.keywords.is_empty(), "keywords"),
    ] {
        if missing {
            complaints.push(format!("{name} has no {what}"));
        }
    }
    if package.keywords.len() > 5 || package.categories.len() > 5 {
        complaints.push(format!("{name} has more than 5 keywords or categories"));
    }
    for keyword in package.keywords.iter().filter(|keyword| !is_keyword(keyword)) {
        complaints.push(format!("{name}: the registry refuses the keyword {keyword:?}"));
    }
    complaints
}

fn is_keyword(word: &str) -> bool {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-+".contains(letter);
    word.len() <= 20 && word.starts_with(|first: char| first.is_ascii_alphanumeric()) && word.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_package_is_complete_but_for_its_files() {
        let all = ["LICENSE-APACHE", "LICENSE-MIT", "README.md"].map(str::to_owned);
        let packages = workspace::published().unwrap();
        let complaints: Vec<_> = packages.iter().flat_map(|package| complaints(package, &all)).collect();
        assert!(!packages.is_empty() && complaints.is_empty(), "{complaints:#?}");
    }

    #[test]
    fn a_missing_file_or_field_and_a_bad_keyword_are_named() {
        let mut package = workspace::published().unwrap().remove(0);
        package.description = None;
        package.keywords = vec!["two words".to_owned()];
        let complaints = complaints(&package, &["README.md".to_owned(), "LICENSE-MIT".to_owned()]);
        for (complaint, word) in complaints.iter().zip(["LICENSE-APACHE", "description", "two words"]) {
            assert!(complaint.contains(word) && complaint.starts_with(package.name.as_str()), "{complaint}");
        }
        assert_eq!(complaints.len(), 3, "{complaints:?}");
    }
}
