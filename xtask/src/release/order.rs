//! The order in which packages are published: each after those that it needs.
//! Must not know how a package is published.

use anyhow::Context;
use cargo_metadata::{DependencyKind, Package, semver::VersionReq};

/// A package to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) version: String,
    /// The packages that the registry must have before this one.
    pub(super) needs: Vec<String>,
}

/// The packages in their order.
///
/// # Errors
/// Packages need each other, or one that is not among them.
pub(super) fn of(packages: &[Package]) -> anyhow::Result<Vec<Crate>> {
    order(packages.iter().map(read).collect())
}

fn read(package: &Package) -> Crate {
    // Cargo removes development dependencies without a version from the package.
    let stays = |dependency: &&cargo_metadata::Dependency| {
        dependency.path.is_some()
            && (dependency.kind != DependencyKind::Development || dependency.req != VersionReq::STAR)
    };
    let needs = package.dependencies.iter().filter(stays).map(|dependency| dependency.name.clone());
    Crate { name: package.name.to_string(), version: package.version.to_string(), needs: needs.collect() }
}

/// By need, then by name.
fn order(mut crates: Vec<Crate>) -> anyhow::Result<Vec<Crate>> {
    crates.sort_by(|one, other| one.name.cmp(&other.name));
    for found in &crates {
        for need in &found.needs {
            let is_published = crates.iter().any(|other| other.name == *need);
            anyhow::ensure!(is_published, "{} needs {need}, which is not published", found.name);
        }
    }
    let mut ordered: Vec<Crate> = Vec::new();
    while !crates.is_empty() {
        let is_ready = |found: &Crate| found.needs.iter().all(|need| ordered.iter().any(|done| done.name == *need));
        let Some(next) = crates.iter().position(is_ready) else {
            let names: Vec<_> = crates.iter().map(|found| found.name.as_str()).collect();
            anyhow::bail!("these packages need each other, directly or not: {}", names.join(", "));
        };
        ordered.push(crates.remove(next));
    }
    Ok(ordered)
}

/// The version that all packages have.
///
/// # Errors
/// They have several, or there is none.
pub(super) fn version(crates: &[Crate]) -> anyhow::Result<&str> {
    let first = crates.first().context("no package of this workspace is published")?;
    for other in crates {
        anyhow::ensure!(
            other.version == first.version,
            "{} has version {}, but {} has {}: write `version.workspace = true`",
            other.name,
            other.version,
            first.name,
            first.version
        );
    }
    Ok(&first.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, needs: &[&str]) -> Crate {
        let needs = needs.iter().map(|need| (*need).to_owned()).collect();
        Crate { name: name.to_owned(), version: "0.1.0".to_owned(), needs }
    }

    fn names(crates: Vec<Crate>) -> Vec<String> {
        order(crates).unwrap().into_iter().map(|found| found.name).collect()
    }

    #[test]
    fn a_package_comes_after_what_it_needs() {
        let crates = vec![sample("a", &["c", "b"]), sample("b", &["d"]), sample("c", &[]), sample("d", &["c"])];
        assert_eq!(names(crates), ["c", "d", "b", "a"]);
    }

    #[test]
    fn without_a_need_the_name_decides() {
        assert_eq!(names(vec![sample("b", &[]), sample("a", &[])]), ["a", "b"]);
    }

    #[test]
    fn packages_that_need_each_other_are_named() {
        let crates = vec![sample("a", &["b"]), sample("b", &["a"]), sample("c", &[])];
        assert!(order(crates).unwrap_err().to_string().ends_with("a, b"));
    }

    #[test]
    fn a_need_that_is_not_published_is_named() {
        let error = order(vec![sample("a", &["private"])]).unwrap_err().to_string();
        assert!(error.contains("a needs private"), "{error}");
    }

    #[test]
    fn one_version_for_all() {
        let mut crates = vec![sample("a", &[]), sample("b", &[])];
        assert_eq!(version(&crates).unwrap(), "0.1.0");
        crates[1].version = "0.2.0".to_owned();
        let error = version(&crates).unwrap_err().to_string();
        assert!(error.contains("b has version 0.2.0, but a has 0.1.0"), "{error}");
        assert!(version(&[]).is_err());
    }

    #[test]
    fn this_workspace_has_an_order() {
        let crates = of(&crate::workspace::published().unwrap()).unwrap();
        let place = |name: &str| crates.iter().position(|found| found.name == name).unwrap();
        assert_eq!(place("batchsql-core"), 0);
        for (before, after) in [
            ("batchsql-core", "batchsql-testkit"),
            ("batchsql-testkit", "batchsql-metrics"),
            ("batchsql-sql", "batchsql-postgres"),
            ("batchsql-prometheus", "batchsql"),
        ] {
            assert!(place(before) < place(after), "{before} comes after {after}");
        }
        assert!(crates.iter().all(|found| found.name != "xtask" && found.name != "batchsql-suite"));
    }
}
