//! The verb `lint-monitoring`, with a fake cargo that only records its arguments.

use std::{fs, path::Path, process::Output};

use crate::place::{Place, text};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A copy of the checked files, and a fake cargo.
struct Tree(Place);

impl Tree {
    fn copy() -> Self {
        let place = Place::new();
        for folder in ["monitoring", "docs", "docker"] {
            copy(&Path::new(ROOT).join(folder), &place.0.join("tree").join(folder));
        }
        place.program("cargo", "#!/bin/sh\necho \"CALL $*\"\n");
        Self(place)
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.0.0.join("tree").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} does not contain {from:?}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    fn lint(&self, environment: &[(&str, &str)]) -> Output {
        let tree = self.0.0.join("tree");
        let mut command = self.0.xtask(&["lint-monitoring", "--no-install", "--root", tree.to_str().unwrap()]);
        command.env("CARGO", self.0.0.join("cargo")).envs(environment.iter().copied());
        command.output().unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn every_check_is_made() {
    let tree = Tree::copy();
    let output = tree.lint(&[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let lint = format!("CALL run --quiet --package batchsql-monitoring -- lint --root {}", tree.0.0.display());
    assert!(text.contains(&lint), "{text}");
    for step in ["prometheus.yml", "prometheus.prod.yml", "prometheus.cluster.yml", "rules", "tests of rules"] {
        assert!(text.contains(&format!("passed   {step} (")), "{step}: {text}");
    }
}

#[test]
fn what_is_broken_is_named_and_the_other_checks_are_made() {
    let check = |file: &str, from: &str, to: &str, expected: &[&str]| {
        let tree = Tree::copy();
        tree.edit(file, from, to);
        // The compose files are unchanged, and the real program takes a second for each.
        tree.0.program("docker", "#!/bin/sh\n");
        let path = format!("{}:{}", tree.0.0.display(), std::env::var("PATH").unwrap());
        let output = tree.lint(&[("PATH", &path)]);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in expected {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(text.contains("passed   queries, rules, dashboards, runbooks ("), "{text}");
    };
    let prometheus = "monitoring/prometheus.yml";
    check(
        prometheus,
        "scrape_timeout: 4s",
        "scrape_timeout: 6s",
        &["scrape timeout greater", "FAILED   prometheus.yml ("],
    );
    let production = "monitoring/prometheus.prod.yml";
    check(production, "rule_files:", "rule_file:", &["rule_file not found", "FAILED   prometheus.prod.yml ("]);
    let rules = "monitoring/rules/recording.yml";
    check(
        rules,
        "sum by (le, job, database) (",
        "sum by (le, job, database (",
        &["could not parse", "FAILED   rules ("],
    );
    let alerts = "monitoring/rules/alerts.yml";
    check(
        alerts,
        "ratio_rate5m > 0.05",
        "ratio_rate5m > 0.5",
        &["BatchSqlFailureRatioHigh", "FAILED   tests of rules ("],
    );
}

#[test]
fn missing_programs_are_passed_over_by_a_person_and_not_in_ci() {
    let tree = Tree::copy();
    let path = tree.0.0.to_str().unwrap();
    let output = tree.lint(&[("PATH", path)]);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for (tool, package) in
        [("promtool", "prometheus"), ("amtool", "prometheus-alertmanager"), ("docker compose", "docker-compose")]
    {
        assert!(said.contains(&format!("skipped  {tool}: {tool} is missing")), "{said}");
        assert!(said.contains(&format!("install the package `{package}`")), "{said}");
    }
    let output = tree.lint(&[("PATH", path), ("CI", "true")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("FAILED   promtool: promtool is missing, and --no-install forbids"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_tree_that_is_not_there_is_named() {
    let output = Place::new().xtask(&["lint-monitoring", "--no-install", "--root", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("cannot read /nowhere"), "{}", text(&output));
}
