//! The state of Prometheus and Grafana, from their HTTP interfaces.
//! Must not know how it is used.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::http;

const PATIENCE: Duration = Duration::from_secs(5);

/// Something that Prometheus scrapes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) job: String,
    pub(super) url: String,
    /// `up`, `down`, or `unknown` before the first scrape.
    pub(super) health: String,
    pub(super) trouble: String,
}

/// The number of rules, and the rules that Prometheus cannot evaluate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) recording: usize,
    pub(super) alerting: usize,
    /// Each with the reason.
    pub(super) broken: Vec<String>,
}

/// An alert that fires or is about to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Alert {
    pub(super) name: String,
    /// `firing` or `pending`.
    pub(super) state: String,
    pub(super) summary: String,
}

/// Whether a page responds with 200; otherwise the reason.
pub(super) fn is_ready(url: &str) -> Result<(), String> {
    match http::get(url, PATIENCE) {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("it responds with status {}", answer.status)),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// The address of the targets page. Debian's Prometheus has only the old user interface.
pub(super) fn targets_page(prometheus: &str) -> String {
    let pages = ["targets", "classic/targets"].map(|page| format!("{prometheus}/{page}"));
    pages.into_iter().find(|page| is_ready(page).is_ok()).unwrap_or_else(|| prometheus.to_owned())
}

pub(super) fn targets(prometheus: &str) -> anyhow::Result<Vec<Target>> {
    let data = data(prometheus, "targets?state=active")?;
    let target = |target: &Value| Target {
        job: text(&target["labels"]["job"]),
        url: text(&target["scrapeUrl"]),
        health: text(&target["health"]),
        trouble: text(&target["lastError"]),
    };
    let mut targets: Vec<_> = list(&data["activeTargets"]).iter().map(target).collect();
    targets.sort_by(|a, b| (&a.job, &a.url).cmp(&(&b.job, &b.url)));
    Ok(targets)
}

pub(super) fn rules(prometheus: &str) -> anyhow::Result<Rules> {
    let data = data(prometheus, "rules")?;
    let mut rules = Rules::default();
    for rule in list(&data["groups"]).iter().flat_map(|group| list(&group["rules"])) {
        match rule["type"] == "alerting" {
            true => rules.alerting += 1,
            false => rules.recording += 1,
        }
        if rule["health"] == "err" {
            rules.broken.push(format!("{}: {}", text(&rule["name"]), text(&rule["lastError"])));
        }
    }
    Ok(rules)
}

pub(super) fn alerts(prometheus: &str) -> anyhow::Result<Vec<Alert>> {
    let data = data(prometheus, "alerts")?;
    let alert = |alert: &Value| Alert {
        name: text(&alert["labels"]["alertname"]),
        state: text(&alert["state"]),
        summary: text(&alert["annotations"]["summary"]),
    };
    Ok(list(&data["alerts"]).iter().map(alert).collect())
}

fn data(prometheus: &str, what: &str) -> anyhow::Result<Value> {
    let url = format!("{prometheus}/api/v1/{what}");
    let mut answer = http::get(&url, PATIENCE)?.json().with_context(|| format!("cannot use the response of {url}"))?;
    Ok(answer["data"].take())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
