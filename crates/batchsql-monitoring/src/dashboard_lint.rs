//! Owns the rules for dashboards: structure, variables, panels, queries.
//! Must not know files or a running Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use batchsql_metrics::Metric;
use promql_parser::label::MatchOp;
use serde_json::Value;

use crate::dashboard::{Dashboard, GridPosition, Panel, Target, Variable};
use crate::finding::Findings;
use crate::names::Names;
use crate::query::{Query, VARIABLE};
use crate::variables::substitute;

/// The panels that the dashboard must have, with exactly these titles.
const REQUIRED: [&str; 7] = [
    "Records Per Second",
    "Batch Execution Duration",
    "Memory Usage",
    "Data Integrity Rate",
    "Batch Execution Rate",
    "Records Processing Rate",
    "Test Success Status",
];

const TITLE: &str = "BatchSQL Performance Dashboard";
const UID: &str = "batchsql-performance";
/// The schema of Grafana 10; Grafana migrates older ones with heuristics.
const SCHEMA: u32 = 38;
/// Panels of Grafana 10 and later that show queries. Grafana has removed `graph` and `singlestat`.
const KINDS: [&str; 10] = [
    "timeseries",
    "stat",
    HEATMAP,
    "state-timeline",
    "status-history",
    "gauge",
    "bargauge",
    "barchart",
    "histogram",
    "table",
];
const HEATMAP: &str = "heatmap";
/// Units of Grafana that metrics here can have. Grafana shows an unknown unit as a word after the number.
const UNITS: [&str; 17] = [
    "none",
    "short",
    "percent",
    "percentunit",
    "s",
    "ms",
    "dateTimeAsIso",
    "bytes",
    "decbytes",
    "mbytes",
    "Bps",
    "binBps",
    "ops",
    "rowsps",
    "cps",
    "string",
    "bool",
];
/// The datasource as the variable.
const DATASOURCE: &str = "${datasource}";

/// Each multi-select variable, and the value of All: a label that may be missing needs `.*`, or series without it are
/// hidden.
const VARIABLES: [(&str, &str); 4] = [("job", ".+"), ("instance", ".+"), ("database", ".+"), ("test_case", ".*")];

/// Replacements for Grafana's own variables; no query has such a range itself.
const RATE_INTERVAL: u64 = 4_242;
const RANGE: u64 = 4_243;

/// Checks a dashboard; returns the names of series that it uses, and the number of its queries.
pub(crate) fn check(text: &str, names: &Names, findings: &mut Findings<'_>) -> (BTreeSet<String>, usize) {
    let dashboard = match Dashboard::parse(text) {
        Ok(dashboard) => dashboard,
        Err(error) => {
            findings.add("", format!("it is not a dashboard: {error}; export the classic JSON model"));
            return Default::default();
        }
    };
    structure(&dashboard, findings);
    layout(&dashboard, findings);
    let mut queries = Queries { names, findings, used: BTreeSet::new(), count: 0 };
    queries.variables(&dashboard);
    queries.annotations(&dashboard);
    for panel in dashboard.all_panels().filter(|panel| !panel.is_row()) {
        queries.panel(panel);
    }
    (queries.used, queries.count)
}

fn structure(dashboard: &Dashboard, findings: &mut Findings<'_>) {
    findings.expect(dashboard.title == TITLE, "title", format!("it is {:?}; make it {TITLE:?}", dashboard.title));
    findings.expect(dashboard.uid == UID, "uid", format!("it is {:?}; links need {UID:?}", dashboard.uid));
    let schema = dashboard.schema_version;
    findings.expect(schema >= SCHEMA, "schemaVersion", format!("{schema} is older than {SCHEMA}; export it anew"));
    findings.expect(
        dashboard.inputs.is_none(),
        "__inputs",
        "Grafana does not ask for inputs of a provisioned dashboard; export it without \"for sharing externally\"",
    );
    let panels: Vec<&Panel> = dashboard.all_panels().filter(|panel| !panel.is_row()).collect();
    for title in REQUIRED {
        let there = panels.iter().filter(|panel| panel.title == title).count();
        findings.expect(there == 1, title, format!("{there} panels have this title; exactly one must"));
    }
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard.all_panels() {
        let name = panel.name();
        match panel.id {
            None => findings.add(&name, "it has no id; give it one that no other panel has"),
            Some(id) => findings.expect(ids.insert(id), &name, format!("another panel has id {id}")),
        }
        findings.expect(!panel.title.trim().is_empty(), &name, "it has no title");
        findings.expect(titles.insert(&panel.title), &name, "another panel has this title");
    }
    for panel in panels {
        let name = panel.name();
        findings.expect(!panel.description.trim().is_empty(), &name, "it has no description; say what it shows");
        let unit = &panel.field_config.defaults.unit;
        findings.expect(!unit.is_empty(), &name, "it has no unit; use \"none\" for plain numbers");
        let is_known = unit.is_empty() || UNITS.contains(&&**unit);
        findings.expect(is_known, &name, format!("unit {unit:?} is not one of {}", UNITS.join(", ")));
        let kind = &panel.kind;
        findings.expect(KINDS.contains(&&**kind), &name, format!("type {kind:?} is not one of {}", KINDS.join(", ")));
        findings.expect(uses_variable(panel.datasource.as_ref()), &name, needs_variable(panel.datasource.as_ref()));
        findings.expect(!panel.targets.is_empty(), &name, "it has no query");
        let mut references = BTreeSet::new();
        for Target { ref_id, datasource, expr, format, .. } in &panel.targets {
            let fits = (panel.kind == HEATMAP) == (format == HEATMAP);
            findings.expect(
                fits,
                &name,
                format!("format {format:?} does not fit a {}; only a heatmap needs format \"heatmap\"", panel.kind),
            );
            findings.expect(
                !ref_id.is_empty() && references.insert(ref_id),
                &name,
                format!("refId {ref_id:?} is empty or not unique"),
            );
            findings.expect(uses_variable(datasource.as_ref()), &name, needs_variable(datasource.as_ref()));
            findings.expect(!expr.trim().is_empty(), &name, format!("query {ref_id} is empty"));
        }
    }
}

fn uses_variable(datasource: Option<&Value>) -> bool {
    datasource.is_some_and(|datasource| datasource["uid"] == DATASOURCE && datasource["type"] == "prometheus")
}

fn needs_variable(datasource: Option<&Value>) -> String {
    let has = datasource.map_or_else(|| "none".to_owned(), Value::to_string);
    format!("its datasource is {has}; use the variable: {{\"type\": \"prometheus\", \"uid\": \"{DATASOURCE}\"}}")
}

fn layout(dashboard: &Dashboard, findings: &mut Findings<'_>) {
    let mut places: Vec<(String, GridPosition)> = Vec::new();
    // Grafana places the panels of a collapsed row when it is opened.
    for panel in &dashboard.panels {
        let name = panel.name();
        let Some(place) = panel.grid_pos else {
            findings.add(&name, "it has no gridPos");
            continue;
        };
        let GridPosition { x, y, w, h } = place;
        findings.expect(w > 0 && h > 0 && x + w <= 24, &name, format!("x {x}, w {w}, h {h} do not fit 24 columns"));
        let meets =
            |other: &GridPosition| x < other.x + other.w && other.x < x + w && y < other.y + other.h && other.y < y + h;
        if let Some((other, _)) = places.iter().find(|(_, other)| meets(other)) {
            findings.add(&name, format!("it overlaps {other}"));
        }
        places.push((name, place));
    }
}

/// The queries of one dashboard.
struct Queries<'a, 'b> {
    names: &'a Names,
    findings: &'a mut Findings<'b>,
    used: BTreeSet<String>,
    count: usize,
}

impl Queries<'_, '_> {
    fn variables(&mut self, dashboard: &Dashboard) {
        let variables: BTreeMap<&str, &Variable> =
            dashboard.templating.list.iter().map(|variable| (&*variable.name, variable)).collect();
        match variables.get("datasource") {
            Some(datasource) => self.findings.expect(
                datasource.kind == "datasource" && datasource.query == "prometheus",
                "variable datasource",
                "it must select a datasource of type prometheus",
            ),
            None => self.findings.add("variables", "there is no variable datasource; queries use it"),
        }
        for (name, all) in VARIABLES {
            let place = format!("variable {name}");
            let Some(variable) = variables.get(name) else {
                self.findings.add("variables", format!("there is no variable {name}; queries use it"));
                continue;
            };
            let is_multi = variable.multi && variable.include_all;
            self.findings.expect(is_multi, &place, "it must allow several values and All");
            let has = variable.all_value.as_deref().unwrap_or_default();
            self.findings.expect(has == all, &place, format!("allValue is {has:?}; it must be {all:?}"));
            let datasource = variable.datasource.as_ref();
            self.findings.expect(uses_variable(datasource), &place, needs_variable(datasource));
            self.findings.expect(variable.label.is_some(), &place, "it has no label");
            match variable.label_values() {
                Some((selector, label)) => {
                    if let Some(query) = self.query(&place, &selector) {
                        let known = query.labels.is_none_or(|labels| labels.contains(&label));
                        self.findings.expect(known, &place, format!("{selector} has no label {label}"));
                    }
                }
                None => self.findings.add(&place, "its query is not label_values(metric{...}, label)"),
            }
        }
    }

    fn annotations(&mut self, dashboard: &Dashboard) {
        for annotation in dashboard.annotations.list.iter().filter(|annotation| !annotation.expr.is_empty()) {
            let place = format!("annotation \"{}\"", annotation.name);
            let datasource = annotation.datasource.as_ref();
            self.findings.expect(uses_variable(datasource), &place, needs_variable(datasource));
            if let Some(query) = self.query(&place, &annotation.expr) {
                for text in [&annotation.title_format, &annotation.text_format] {
                    self.legend(&place, text, &query);
                }
                // An alert may be about a process that no panel can select.
                if query.used.iter().any(|name| name != "ALERTS") {
                    self.selects(&place, &query);
                }
            }
        }
    }

    fn panel(&mut self, panel: &Panel) {
        for target in panel.targets.iter().filter(|target| !target.expr.trim().is_empty()) {
            let place = if panel.targets.len() == 1 {
                panel.name()
            } else {
                format!("{}, query {}", panel.name(), target.ref_id)
            };
            let Some(query) = self.query(&place, &target.expr) else { continue };
            self.legend(&place, &target.legend_format, &query);
            self.selects(&place, &query);
            // A heatmap has one series for each bucket; its description says that it is the sum.
            let keeps_job = panel.kind == HEATMAP || query.labels.as_ref().is_none_or(|labels| labels.contains("job"));
            self.findings.expect(
                keeps_job,
                &place,
                "it drops `job`, which mixes series of suite and applications; add it to by()",
            );
            let is_percentage = panel.field_config.defaults.unit == "percent";
            let fits = is_percentage || !query.used.contains(Metric::TestDataIntegrityRate.name());
            self.findings.expect(fits, &place, "the integrity is from 0 to 100; use the unit \"percent\"");
            for (function, seconds) in &query.ranges {
                let fits = match *function {
                    "rate" | "irate" => *seconds == RATE_INTERVAL,
                    "increase" => [RATE_INTERVAL, RANGE].contains(seconds),
                    _ => true,
                };
                let advice =
                    "needs [$__rate_interval]: a short fixed range is empty, and a long one hides short changes";
                self.findings.expect(fits, &place, format!("{function}() {advice}"));
            }
        }
    }

    /// Checks one query.
    fn query(&mut self, place: &str, text: &str) -> Option<Query> {
        self.count += 1;
        let known = |name: &str| match name {
            "__rate_interval" => Some(format!("{RATE_INTERVAL}s")),
            "__range" => Some(format!("{RANGE}s")),
            "__interval" => Some("15s".to_owned()),
            _ => VARIABLES.iter().any(|(variable, _)| *variable == name).then(|| format!("{VARIABLE}{name}")),
        };
        match substitute(text, known) {
            Err(name) => {
                self.findings.add(place, format!("there is no variable ${name}"));
                None
            }
            Ok(text) => {
                let mut query = Query::check(&text, self.names);
                self.findings.extend(place, std::mem::take(&mut query.findings));
                self.used.extend(query.used.iter().cloned());
                Some(query)
            }
        }
    }

    /// Each selector must filter by the variables.
    fn selects(&mut self, place: &str, query: &Query) {
        for (name, matchers) in &query.selectors {
            let Some(labels) = self.names.get(name).and_then(|series| series.labels.as_ref()) else { continue };
            for (variable, _) in VARIABLES.iter().filter(|(variable, _)| labels.contains(*variable)) {
                let value = format!("{VARIABLE}{variable}");
                let follows = matchers.iter().any(|matcher| {
                    matcher.name == *variable && matcher.value == value && matches!(matcher.op, MatchOp::Re(_))
                });
                let advice = format!("{name} does not filter by {variable}; add {variable}=~\"${variable}\"");
                self.findings.expect(follows, place, advice);
            }
        }
    }

    /// A legend may use only labels of the result.
    fn legend(&mut self, place: &str, text: &str, query: &Query) {
        let Some(labels) = &query.labels else { return };
        for part in text.split("{{").skip(1) {
            let label = part.split("}}").next().unwrap_or_default().trim();
            let advice = format!("the legend uses {label}, which the result of the query does not have");
            self.findings.expect(labels.contains(label), place, advice);
        }
    }
}
