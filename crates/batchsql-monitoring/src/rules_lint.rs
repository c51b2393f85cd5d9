//! Owns the checks of rules: recording rules, alerts, their tests and their runbooks.
//! Must not know files or a running Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::Findings;
use crate::names::Names;
use crate::query::{Labels, Query};
use crate::rules::{Rule, RuleFile, Test, TestFile, parse};

/// The address of runbooks in alerts.
const RUNBOOKS: &str = "https://github.com/rushairer/batchsql/blob/main/docs/runbooks/";

/// The sections of every runbook, in this order.
const SECTIONS: [&str; 6] = ["Meaning", "Impact", "How to check", "What to do", "Causes", "When to ignore"];

/// `none` is for alerts that do not report a problem.
const SEVERITIES: [&str; 3] = ["critical", "warning", "none"];

/// The rules of all files.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) used: BTreeSet<String>,
    /// Every alert and every recorded name, with its file.
    pub(crate) alerts: BTreeMap<String, String>,
    pub(crate) records: BTreeMap<String, String>,
    pub(crate) queries: usize,
}

/// The tests of all files: the names that fire or have a value, and those that are quiet.
#[derive(Debug, Default)]
pub(crate) struct Tested {
    firing: BTreeSet<String>,
    quiet: BTreeSet<String>,
}

impl Rules {
    /// Checks a file of rules; later files may use the names that it records.
    pub(crate) fn check(&mut self, file: &str, text: &str, names: &mut Names, findings: &mut Findings<'_>) {
        let rules: RuleFile = match parse(text) {
            Ok(rules) => rules,
            Err(error) => return findings.add("", format!("it cannot be read: {error}")),
        };
        findings.expect(!rules.groups.is_empty(), "", "it has no rules");
        for group in &rules.groups {
            findings.expect(!group.rules.is_empty(), &format!("group {}", group.name), "it has no rules");
        }
        for rule in rules.groups.iter().flat_map(|group| &group.rules) {
            let place = match (&rule.record, &rule.alert) {
                (Some(name), None) => format!("rule {name}"),
                (None, Some(name)) => format!("alert {name}"),
                _ => {
                    findings.add("", "a rule is either a record or an alert");
                    continue;
                }
            };
            let mut query = Query::check(&rule.expr, names);
            self.queries += 1;
            findings.extend(&place, std::mem::take(&mut query.findings));
            self.used.append(&mut query.used);
            if let Some(name) = &rule.record {
                recording(name, &query.labels, &place, findings);
                names.record(name, query.labels.clone());
                let twice = self.records.insert(name.clone(), file.to_owned()).is_some();
                findings.expect(!twice, &place, "another rule records this name");
            }
            if let Some(name) = &rule.alert {
                self.queries += alert(name, rule, &query.labels, names, &place, findings);
                let twice = self.alerts.insert(name.clone(), file.to_owned()).is_some();
                findings.expect(!twice, &place, "another alert has this name");
            }
        }
    }
}

fn recording(name: &str, labels: &Labels, place: &str, findings: &mut Findings<'_>) {
    let parts: Vec<&str> = name.split(':').collect();
    let is_form = matches!(parts[..], [level, metric, operations] if [level, metric, operations].iter().all(|part| !part.is_empty()));
    findings.expect(is_form, place, "its name is not level:metric:operations");
    if let Some(labels) = labels {
        findings.expect(
            labels.contains("job"),
            place,
            "it drops `job`, which mixes series of suite and applications; add it to by()",
        );
        if is_form {
            let level: Vec<&str> = labels.iter().map(String::as_str).collect();
            let mut named = parts[0].to_owned();
            // Labels contain `_` themselves, so the level cannot be split.
            for label in &level {
                named = named.replacen(label, "", 1);
            }
            let fits = named.chars().all(|letter| letter == '_') && named.len() + 1 == level.len().max(1);
            findings.expect(fits, place, format!("its level is {}, its labels are {}", parts[0], level.join(", ")));
        }
    }
}

/// Returns the number of queries in its texts.
fn alert(name: &str, rule: &Rule, labels: &Labels, names: &Names, place: &str, findings: &mut Findings<'_>) -> usize {
    let upper = name.starts_with(|first: char| first.is_ascii_uppercase());
    findings.expect(
        upper && name.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        place,
        "its name is not in CamelCase",
    );
    match rule.labels.get("severity") {
        None => findings.add(place, format!("it has no severity; use one of {}", SEVERITIES.join(", "))),
        Some(severity) => findings.expect(
            SEVERITIES.contains(&&**severity),
            place,
            format!("severity {severity:?} has no route; use one of {}", SEVERITIES.join(", ")),
        ),
    }
    for needed in ["summary", "description", "runbook_url"] {
        let there = rule.annotations.get(needed).is_some_and(|text| !text.trim().is_empty());
        findings.expect(there, place, format!("it has no {needed}"));
    }
    if let Some(url) = rule.annotations.get("runbook_url") {
        let expected = format!("{RUNBOOKS}{name}.md");
        findings.expect(*url == expected, place, format!("runbook_url is {url}; make it {expected}"));
    }
    let mut queries = 0;
    for (annotation, text) in &rule.annotations {
        let place = format!("{place}, {annotation}");
        if let Some(labels) = labels {
            for label in after(text, "$labels.") {
                let known = labels.contains(label) || rule.labels.contains_key(label) || label == "alertname";
                findings.expect(
                    known,
                    &place,
                    format!("$labels.{label} is always empty: the result has no such label"),
                );
            }
        }
        for query in text.split("query \"").skip(1) {
            let query =
                query.split("\" ").next().unwrap_or(query).trim_end_matches(['"', '}', ' ']).replace("\\\"", "\"");
            queries += 1;
            findings.extend(&place, Query::check(&query, names).findings);
        }
    }
    queries
}

/// The names that follow a prefix.
fn after<'a>(text: &'a str, prefix: &str) -> impl Iterator<Item = &'a str> {
    text.split(prefix).skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

impl Tested {
    /// Reads a file of tests.
    pub(crate) fn read(&mut self, text: &str, names: &Names, findings: &mut Findings<'_>) {
        let file: TestFile = match parse(text) {
            Ok(file) => file,
            Err(error) => return findings.add("", format!("it cannot be read: {error}")),
        };
        findings.expect(!file.tests.is_empty(), "", "it has no tests");
        for Test { alert_rule_test, promql_expr_test } in &file.tests {
            for test in alert_rule_test {
                let fires = test.exp_alerts.as_ref().is_some_and(|alerts| !alerts.is_empty());
                self.note(fires, test.alertname.clone());
            }
            for test in promql_expr_test {
                let has_value = test.exp_samples.as_ref().is_some_and(|samples| !samples.is_empty());
                for (name, _) in Query::check(&test.expr, names).selectors {
                    self.note(has_value, name);
                }
            }
        }
    }

    fn note(&mut self, fires: bool, name: String) {
        if fires { &mut self.firing } else { &mut self.quiet }.insert(name);
    }

    /// Every rule needs both kinds of test.
    pub(crate) fn cover(&self, rules: &Rules, mut finding: impl FnMut(&str, String)) {
        let all =
            rules.alerts.iter().map(|rule| ("alert", rule)).chain(rules.records.iter().map(|rule| ("rule", rule)));
        for (what, (name, file)) in all {
            if !self.firing.contains(name) {
                finding(file, format!("{what} {name}: no test shows it firing; add one to monitoring/rules/tests"));
            }
            if !self.quiet.contains(name) {
                finding(file, format!("{what} {name}: no test shows it quiet; add one to monitoring/rules/tests"));
            }
        }
    }
}

/// Checks a runbook.
pub(crate) fn runbook(name: &str, text: &str, rules: &Rules, findings: &mut Findings<'_>) {
    findings.expect(rules.alerts.contains_key(name), "", "there is no alert of this name; remove or rename the file");
    findings.expect(
        text.lines().next() == Some(&*format!("# {name}")),
        "",
        format!("its first line is not `# {name}`"),
    );
    let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).map(str::trim).collect();
    let message = format!("its sections are {}; make them {}", sections.join(", "), SECTIONS.join(", "));
    findings.expect(sections == SECTIONS, "", message);
}
