//! Owns the model of rule files and of files that test rules.
//! Must not know how rules are checked.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// A file of rules.
#[derive(Debug, Deserialize)]
pub(crate) struct RuleFile {
    #[serde(default)]
    pub(crate) groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Rule {
    pub(crate) record: Option<String>,
    pub(crate) alert: Option<String>,
    pub(crate) expr: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A configuration of Prometheus, with the fields that are used.
#[derive(Debug, Deserialize)]
pub(crate) struct Configuration {
    #[serde(default)]
    pub(crate) scrape_configs: Vec<Scrape>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Scrape {
    pub(crate) job_name: String,
}

/// A file of unit tests for `promtool test rules`.
#[derive(Debug, Deserialize)]
pub(crate) struct TestFile {
    #[serde(default)]
    pub(crate) tests: Vec<Test>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Test {
    #[serde(default)]
    pub(crate) alert_rule_test: Vec<AlertTest>,
    #[serde(default)]
    pub(crate) promql_expr_test: Vec<ExprTest>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AlertTest {
    pub(crate) alertname: String,
    #[serde(default)]
    pub(crate) exp_alerts: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ExprTest {
    pub(crate) expr: String,
    #[serde(default)]
    pub(crate) exp_samples: Option<Vec<IgnoredAny>>,
}

/// # Errors
/// What is wrong with the YAML or its content, in one line.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| {
        // The rest of the message is an excerpt of the file.
        let text = error.to_string();
        text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_file_is_read() {
        let text = "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: |\n      up == 0\n    for: 5m\n    labels: {severity: page}\n";
        let file: RuleFile = parse(text).unwrap();
        assert_eq!(file.groups[0].rules[0].alert.as_deref(), Some("A"));
        assert_eq!(file.groups[0].rules[0].expr.trim(), "up == 0");
        assert_eq!(file.groups[0].rules[0].labels["severity"], "page");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let message = parse::<RuleFile>("groups:\n- name: g\n  rules:\n  - alert: A\n   expr: up\n").unwrap_err();
        assert!(message.contains("line") && !message.contains('\n'), "{message}");
        let message = parse::<RuleFile>("groups:\n- rules: []\n").unwrap_err();
        assert!(message.contains("name"), "{message}");
    }
}
