//! `cargo xtask release`: publishes the packages of this workspace, each after those that it needs.
//! Must not know how a package is built: `package` checks that.

mod changelog;
mod order;

use std::{fs, process::ExitCode};

use anyhow::Context;
use cargo_metadata::Package;

use self::order::Crate;
use crate::{cargo, checks::package, git, steps::Steps, workspace};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Before: `cargo xtask package` builds the packages from their own files. The steps, and what is \
                        not known yet, are in xtask/README.md."
)]
pub(crate) struct Arguments {
    /// Check, and print every step; nothing is published
    #[arg(long, conflicts_with = "execute", required_unless_present = "execute")]
    dry_run: bool,
    /// Publish. This cannot be undone
    #[arg(long)]
    execute: bool,
    /// Begin with this package: a release that stopped goes on
    #[arg(long, value_name = "PACKAGE")]
    from: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let packages = workspace::published()?;
    let crates = order::of(&packages)?;
    let version = order::version(&crates)?.to_owned();
    let crates = from(crates, arguments.from.as_deref())?;
    let mut steps = Steps::default();
    check(&mut steps, &packages, &version, arguments.execute);
    // A dry run shows the order also while something is missing.
    if steps.failed() && arguments.execute {
        say!("nothing is published");
        return Ok(steps.finish());
    }
    if arguments.execute && arguments.from.is_none() {
        // A version that is published stays, so all of them are built before the first one is.
        steps.run("build every package", package::command(&packages));
        if steps.failed() {
            say!("nothing is published");
            return Ok(steps.finish());
        }
    }
    for Crate { name, .. } in &crates {
        let title = format!("cargo publish --package {name} --locked");
        if !arguments.execute {
            let when = if steps.failed() { ", once nothing is missing" } else { "" };
            steps.holds(title, format!("would publish {name} {version}{when}"));
            continue;
        }
        let mut command = cargo::command();
        command.args(["publish", "--package", name, "--locked"]);
        steps.run(title, command);
        if steps.failed() {
            say!("go on with `cargo xtask release --execute --from {name}`");
            return Ok(steps.finish());
        }
    }
    if steps.failed() {
        say!("a release would be refused: see the lines with FAILED");
    }
    say!("afterwards: git tag v{version} && git push origin v{version}");
    Ok(steps.finish())
}

/// What must hold before anything is published.
fn check(steps: &mut Steps, packages: &[Package], version: &str, execute: bool) {
    const CHANGELOG: &str = "CHANGELOG.md";
    const REPOSITORY: &str = "repository";
    match without_repository(packages) {
        None => steps.holds(REPOSITORY, "every package names one"),
        Some(advice) if execute => steps.impossible(REPOSITORY, advice),
        Some(advice) => steps.skip(REPOSITORY, advice),
    }
    match fs::read_to_string(cargo::workspace_root().join(CHANGELOG)) {
        Ok(text) => match changelog::check(&text, version, execute) {
            Ok(found) => steps.holds(CHANGELOG, found),
            Err(mistake) => steps.impossible(CHANGELOG, mistake),
        },
        Err(error) => steps.impossible(CHANGELOG, error.to_string()),
    }
    match uncommitted() {
        Ok(files) if files.is_empty() => steps.holds("clean tree", "everything is committed"),
        Ok(files) => steps.impossible("clean tree", format!("not committed: {}", files.join(", "))),
        Err(error) => steps.impossible("clean tree", format!("{error:#}")),
    }
    if git::output(&["rev-parse", "--quiet", "--verify", &format!("refs/tags/v{version}")]).is_ok() {
        steps.impossible("tag", format!("v{version} exists: this version was released; raise `version` in Cargo.toml"));
    }
    match git::output(&["branch", "--remotes", "--contains", "HEAD"]) {
        Ok(branches) if !branches.trim().is_empty() => steps.holds("pushed", "a remote branch has this commit"),
        _ if execute => steps.impossible("pushed", "no remote branch has this commit; push it first"),
        _ => steps.skip("pushed", "no remote branch has this commit; push it before a release"),
    }
}

/// What is to be set, if a package does not name its repository. `--execute` then refuses, because the page of a
/// published version cannot be changed.
fn without_repository(packages: &[Package]) -> Option<String> {
    let found = packages.iter().filter(|package| package.repository.is_none());
    let names: Vec<_> = found.map(|package| package.name.as_str()).collect();
    let advice = "to be set before a release: `repository` in `[workspace.package]` of Cargo.toml, and \
                  `repository.workspace = true` in";
    (!names.is_empty()).then(|| format!("{advice} {}", names.join(", ")))
}

fn uncommitted() -> anyhow::Result<Vec<String>> {
    Ok(git::output(&["status", "--porcelain"])?.lines().filter_map(|line| line.get(3..)).map(str::to_owned).collect())
}

/// The packages from one of them on.
fn from(mut crates: Vec<Crate>, first: Option<&str>) -> anyhow::Result<Vec<Crate>> {
    let Some(first) = first else { return Ok(crates) };
    let place = crates.iter().position(|found| found.name == first);
    let names = || crates.iter().map(|found| found.name.as_str()).collect::<Vec<_>>().join(", ");
    let place = place.with_context(|| format!("{first} is not published; these are: {}", names()))?;
    Ok(crates.split_off(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str) -> Crate {
        Crate { name: name.to_owned(), version: "0.1.0".to_owned(), needs: Vec::new() }
    }

    #[test]
    fn a_package_without_a_repository_is_named() {
        let mut packages = workspace::published().unwrap();
        packages.iter_mut().for_each(|package| package.repository = Some("https://example.com".to_owned()));
        assert_eq!(without_repository(&packages), None);
        packages[1].repository = None;
        let advice = without_repository(&packages).unwrap();
        assert!(advice.ends_with(&format!(" in {}", packages[1].name)), "{advice}");
    }

    #[test]
    fn a_release_goes_on_with_the_package_that_failed() {
        let all = || ["a", "b", "c"].map(sample).to_vec();
        let names = |first| from(all(), first).unwrap().into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names(None), ["a", "b", "c"]);
        assert_eq!(names(Some("b")), ["b", "c"]);
        assert!(from(all(), Some("d")).unwrap_err().to_string().contains("a, b, c"));
    }
}
