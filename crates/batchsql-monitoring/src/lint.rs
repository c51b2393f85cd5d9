//! Owns the checks of all files of a tree: which files are read, in which order, and the checks across files.
//! Must not know the rules for one file, or a running Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use batchsql_metrics::Metric;

use crate::finding::{Finding, Findings};
use crate::names::Names;
use crate::query::Query;
use crate::rules::{self, Configuration};
use crate::rules_lint::{Rules, Tested, runbook};
use crate::{dashboard_lint, documents};

/// Metrics that no panel and no rule uses, with reasons.
const UNUSED: &[(Metric, &str)] = &[];

/// The address of this repository in links.
const REPOSITORY: &str = "https://github.com/rushairer/batchsql/blob/main/";

/// The result of a check.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Every mistake, ordered by file.
    pub findings: Vec<Finding>,
    /// Files that were read.
    pub files: usize,
    /// Checked queries: of dashboards, rules, runbooks and guides.
    pub queries: usize,
    /// Rules, recording and alert.
    pub rules: usize,
}

/// Checks `monitoring/` and `docs/` of the repository at `root`. Mistakes in files are findings.
///
/// # Errors
/// A folder or file cannot be read.
pub fn lint(root: &Path) -> Result<Report> {
    let tree = Tree { root };
    let mut report = Report::default();
    let mut names = Names::new();
    let mut rules = Rules::default();

    for file in ["monitoring/prometheus.yml", "monitoring/prometheus.prod.yml", "monitoring/prometheus.cluster.yml"] {
        let text = report.read(&tree, file)?;
        match rules::parse::<Configuration>(&text) {
            Ok(configuration) => names.know(configuration.scrape_configs.into_iter().map(|scrape| scrape.job_name), []),
            Err(error) => Findings::of(file, &mut report.findings).add("", format!("it cannot be read: {error}")),
        }
    }
    let mut rule_files = tree.files("monitoring/rules", "yml")?;
    // Recording rules come first, because other rules use them.
    rule_files.sort_by_key(|file| !file.ends_with("recording.yml"));
    rule_files.extend(tree.files("monitoring/rules/prod", "yml")?);
    for file in &rule_files {
        let text = report.read(&tree, file)?;
        rules.check(file, &text, &mut names, &mut Findings::of(file, &mut report.findings));
    }
    names.know([], rules.alerts.keys().cloned());
    let mut tested = Tested::default();
    for file in tree.files("monitoring/rules/tests", "yml")? {
        let text = report.read(&tree, &file)?;
        tested.read(&text, &names, &mut Findings::of(&file, &mut report.findings));
    }
    tested.cover(&rules, |file, message| Findings::of(file, &mut report.findings).add("", message));

    let mut used = rules.used.clone();
    let dashboards = tree.files("monitoring/grafana/dashboards", "json")?;
    let mut links = BTreeSet::new();
    for file in &dashboards {
        let text = report.read(&tree, file)?;
        let mut findings = Findings::of(file, &mut report.findings);
        let (names_used, queries) = dashboard_lint::check(&text, &names, &mut findings);
        used.extend(names_used);
        report.queries += queries;
        links.extend(repository_links(&text).map(|link| (file.clone(), link)));
    }
    if dashboards.is_empty() {
        Findings::of("monitoring/grafana/dashboards", &mut report.findings).add("", "there is no dashboard");
    }
    for (record, file) in rules.records.iter().filter(|(record, _)| !used.contains(*record)) {
        let advice = "no alert, rule or panel uses it; remove it, or use it where the expression is repeated";
        Findings::of(file, &mut report.findings).add(format!("rule {record}"), advice);
    }
    runbooks(&tree, &rules, &mut report)?;
    documents(&tree, &names, &mut report)?;
    unused(&used, &names, &mut report);
    for (file, link) in links {
        if !root.join(&link).exists() {
            Findings::of(&file, &mut report.findings).add("links", format!("{link} is not in the repository"));
        }
    }
    report.queries += rules.queries;
    report.rules = rules.alerts.len() + rules.records.len();
    Ok(report)
}

impl Report {
    fn read(&mut self, tree: &Tree<'_>, file: &str) -> Result<String> {
        self.files += 1;
        fs::read_to_string(tree.root.join(file)).with_context(|| format!("cannot read {file}"))
    }
}

fn runbooks(tree: &Tree<'_>, rules: &Rules, report: &mut Report) -> Result<()> {
    let mut there = BTreeSet::new();
    for file in tree.files("docs/runbooks", "md")? {
        let text = report.read(tree, &file)?;
        let name = Path::new(&file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        // The README is their list.
        if name != "README" {
            runbook(&name, &text, rules, &mut Findings::of(&file, &mut report.findings));
            there.insert(name);
        }
    }
    for (alert, file) in &rules.alerts {
        let message = format!("it has no runbook; write docs/runbooks/{alert}.md");
        Findings::of(file, &mut report.findings).expect(there.contains(alert), &format!("alert {alert}"), message);
    }
    Ok(())
}

fn documents(tree: &Tree<'_>, names: &Names, report: &mut Report) -> Result<()> {
    let mut files = tree.files("", "md")?;
    files.extend(tree.files("docs", "md")?);
    files.extend(tree.files("docs/runbooks", "md")?);
    for file in files {
        let text = report.read(tree, &file)?;
        for block in documents::queries(&text) {
            report.queries += 1;
            let found = Query::check(&block.text, names).findings;
            let place = format!("line {}", block.line);
            let mut findings = Findings::of(&file, &mut report.findings);
            if block.is_wrong {
                let advice = "it is marked `promql wrong`, but it is correct; mark it `promql`";
                findings.expect(!found.is_empty(), &place, advice);
            } else {
                findings.extend(&place, found);
            }
        }
    }
    Ok(())
}

/// Finds metrics that no panel and no rule uses.
fn unused(used: &BTreeSet<String>, names: &Names, report: &mut Report) {
    let used: Vec<Metric> = used.iter().filter_map(|name| names.get(name)).filter_map(|series| series.metric).collect();
    for metric in Metric::ALL.iter().filter(|metric| !used.contains(metric)) {
        let excused = UNUSED.iter().any(|(known, _)| known == metric);
        Findings::of("crates/batchsql-metrics/src/catalogue.rs", &mut report.findings).expect(
            excused,
            metric.name(),
            "no panel and no rule uses it; add it to the dashboard, or to UNUSED in crates/batchsql-monitoring/src/lint.rs \
             with the reason",
        );
    }
}

/// The files of this repository in the links of a text.
fn repository_links(text: &str) -> impl Iterator<Item = String> {
    text.split(REPOSITORY).skip(1).map(|rest| rest.split(['"', '#', ')', ' ']).next().unwrap_or_default().to_owned())
}

struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    /// The files of a folder, without subfolders, by name. Empty if there is no such folder.
    fn files(&self, folder: &str, extension: &str) -> Result<Vec<String>> {
        let path: PathBuf = self.root.join(folder);
        if !path.is_dir() {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
            let path = entry.with_context(|| format!("cannot read {}", path.display()))?.path();
            if path.is_file() && path.extension().is_some_and(|has| has == extension) {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                files.push(if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") });
            }
        }
        files.sort();
        Ok(files)
    }
}
