//! Owns the check of one query: its names, their labels, and functions that fit the kind of metric.
//! Must not know where a query comes from.

use std::collections::BTreeSet;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
};

use crate::names::Names;

/// Placeholder for a variable of a dashboard in a matcher.
pub(crate) const VARIABLE: &str = "variable-";

/// The result of checking a query.
#[derive(Debug, Default)]
pub(crate) struct Query {
    /// Its mistakes.
    pub(crate) findings: Vec<String>,
    /// Names of series that it selects.
    pub(crate) used: BTreeSet<String>,
    /// Its selectors: the name and the matchers.
    pub(crate) selectors: Vec<(String, Vec<Matcher>)>,
    /// Functions over a range, with its seconds.
    pub(crate) ranges: Vec<(&'static str, u64)>,
    /// Labels of the result; `None` if unknown.
    pub(crate) labels: Labels,
}

/// Labels of a vector; `None` if unknown.
pub(crate) type Labels = Option<BTreeSet<String>>;

/// The type of an expression.
enum Shape {
    Number,
    Vector(Labels),
}

impl Query {
    /// Parses a query and checks it.
    pub(crate) fn check(text: &str, names: &Names) -> Self {
        let mut query = Self::default();
        match parser::parse(text) {
            Ok(expr) => {
                let shape = query.visit(&expr, names);
                query.labels = if let Shape::Vector(labels) = shape { labels } else { Some(BTreeSet::new()) };
            }
            Err(error) => query.findings.push(format!("the query cannot be parsed: {error}")),
        }
        query
    }

    fn visit(&mut self, expr: &Expr, names: &Names) -> Shape {
        match expr {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Shape::Number,
            Expr::Paren(paren) => self.visit(&paren.expr, names),
            Expr::Unary(unary) => self.visit(&unary.expr, names),
            Expr::Subquery(subquery) => self.visit(&subquery.expr, names),
            Expr::VectorSelector(selector) => self.select(selector, names),
            Expr::MatrixSelector(matrix) => self.select(&matrix.vs, names),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, names),
            Expr::Binary(binary) => self.combine(binary, names),
            Expr::Call(call) => self.call(call, names),
            Expr::Extension(_) => Shape::Vector(None),
        }
    }

    fn select(&mut self, selector: &VectorSelector, names: &Names) -> Shape {
        let Some(name) = &selector.name else {
            self.findings.push("a selector without a name cannot be checked; name the metric".to_owned());
            return Shape::Vector(None);
        };
        let matchers = &selector.matchers.matchers;
        self.selectors.push((name.clone(), matchers.clone()));
        let Some(series) = names.get(name) else {
            self.findings.push(format!("there is no metric {name}; {}", names.advice(name)));
            return Shape::Vector(None);
        };
        self.used.insert(name.clone());
        for matcher in matchers {
            self.must_have(&series.labels, [&matcher.name], name);
            if let Some(values) = names.values(name, series, &matcher.name)
                && let Some(wrong) = impossible(matcher, &values)
            {
                self.findings.push(format!(
                    "{name} has no {}=\"{wrong}\"; its values are {}",
                    matcher.name,
                    values.join(", ")
                ));
            }
        }
        Shape::Vector(series.labels.clone())
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr, names: &Names) -> Shape {
        if let Some(parameter) = &aggregate.param {
            self.visit(parameter, names);
        }
        let Shape::Vector(labels) = self.visit(&aggregate.expr, names) else { return Shape::Vector(None) };
        let operator = aggregate.op.to_string();
        if let Some(modifier) = &aggregate.modifier {
            self.must_have(&labels, &modifier.labels().labels, &format!("the operand of {operator}"));
        }
        let keeps_all = ["topk", "bottomk", "limitk", "limit_ratio"].contains(&&*operator);
        if keeps_all || operator == "count_values" {
            return Shape::Vector(labels.filter(|_| keeps_all));
        }
        Shape::Vector(match &aggregate.modifier {
            None => Some(BTreeSet::new()),
            Some(LabelModifier::Include(kept)) => Some(kept.labels.iter().cloned().collect()),
            Some(LabelModifier::Exclude(lost)) => labels.map(|labels| without(&labels, &lost.labels)),
        })
    }

    fn combine(&mut self, binary: &BinaryExpr, names: &Names) -> Shape {
        let (left, right) = (self.visit(&binary.lhs, names), self.visit(&binary.rhs, names));
        let (left, right) = match (left, right) {
            (Shape::Vector(left), Shape::Vector(right)) => (left, right),
            (Shape::Vector(one), Shape::Number) | (Shape::Number, Shape::Vector(one)) => {
                self.compares_total(binary, names);
                return Shape::Vector(one);
            }
            (Shape::Number, Shape::Number) => return Shape::Number,
        };
        let operator = binary.op.to_string();
        let matching = binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref());
        if operator == "or" {
            return Shape::Vector(left.zip(right).map(|(left, right)| &left | &right));
        }
        let compared = |labels: &BTreeSet<String>| match matching {
            Some(LabelModifier::Exclude(ignored)) => without(labels, &ignored.labels),
            _ => labels.clone(),
        };
        if let Some(LabelModifier::Include(on)) = matching {
            for side in [&left, &right] {
                self.must_have(side, &on.labels, &format!("one side of {operator}"));
            }
        } else if let (Some(left), Some(right)) = (&left, &right)
            && compared(left) != compared(right)
        {
            self.findings.push(format!(
                "the sides of {operator} have different labels ({} and {}), so no series match and the result is \
                 always {}; sum both by their common labels, or use on()",
                list(&compared(left)),
                list(&compared(right)),
                if operator == "unless" { "the whole left side" } else { "empty" },
            ));
        }
        if ["and", "unless"].contains(&&*operator) {
            return Shape::Vector(left);
        }
        let modifier = binary.modifier.as_ref();
        self.has_one_partner(binary, &left, &right);
        Shape::Vector(match modifier.map(|modifier| &modifier.card) {
            Some(VectorMatchCardinality::ManyToOne(more)) => left.map(|labels| with(&labels, &more.labels)),
            Some(VectorMatchCardinality::OneToMany(more)) => right.map(|labels| with(&labels, &more.labels)),
            _ => match matching {
                Some(LabelModifier::Include(on)) => Some(on.labels.iter().cloned().collect()),
                _ => left.map(|labels| compared(&labels)),
            },
        })
    }

    fn call(&mut self, call: &Call, names: &Names) -> Shape {
        let function = call.func.name;
        let mut vector = None;
        for argument in &call.args.args {
            self.fits(call.func.name, argument, names);
            if let Shape::Vector(labels) = self.visit(argument, names) {
                vector.get_or_insert(labels);
            }
        }
        match (function, vector) {
            ("time" | "pi" | "scalar", _) => Shape::Number,
            ("vector", _) => Shape::Vector(Some(BTreeSet::new())),
            // The result has the labels of the selector's matchers.
            ("absent" | "absent_over_time" | "label_join", _) | (_, None) => Shape::Vector(None),
            ("histogram_quantile", Some(labels)) => {
                self.quantile(call, labels.as_ref());
                Shape::Vector(labels.map(|labels| without(&labels, &["le".to_owned()])))
            }
            ("label_replace", Some(labels)) => {
                let text = |n: usize| match call.args.args.get(n).map(|argument| &**argument) {
                    Some(Expr::StringLiteral(literal)) => Some(literal.val.clone()),
                    _ => None,
                };
                self.must_have(&labels, text(3).as_ref(), "the operand of label_replace");
                Shape::Vector(labels.map(|labels| with(&labels, text(1).as_slice())))
            }
            (_, Some(labels)) => Shape::Vector(labels),
        }
    }

    /// A side whose series must be unique has only the compared labels: Prometheus rejects the query if two series
    /// differ in another label.
    fn has_one_partner(&mut self, binary: &BinaryExpr, left: &Labels, right: &Labels) {
        let Some(modifier) = &binary.modifier else { return };
        let Some(matching) = &modifier.matching else { return };
        let (unique, brought): (Vec<_>, &[String]) = match &modifier.card {
            VectorMatchCardinality::ManyToOne(more) => (vec![(right, &binary.rhs)], &more.labels),
            VectorMatchCardinality::OneToMany(more) => (vec![(left, &binary.lhs)], &more.labels),
            _ => (vec![(left, &binary.lhs), (right, &binary.rhs)], &[]),
        };
        for (labels, expr) in unique {
            let Some(labels) = labels else { continue };
            let fixed = fixed(expr);
            let beyond = labels.iter().filter(|label| {
                let is_compared = match matching {
                    LabelModifier::Include(on) => on.labels.contains(label),
                    LabelModifier::Exclude(ignored) => !ignored.labels.contains(label),
                };
                !is_compared && !brought.contains(label) && !fixed.contains(*label)
            });
            let beyond: BTreeSet<_> = beyond.cloned().collect();
            if !beyond.is_empty() {
                self.findings.push(format!(
                    "one side of {} has several series for one of the other side ({}), which Prometheus rejects; \
                     sum it by the compared labels, or use group_left or group_right for the side with more series",
                    binary.op,
                    list(&beyond)
                ));
            }
        }
    }

    /// Reports labels that a vector must have and does not.
    fn must_have<'a>(&mut self, labels: &Labels, wanted: impl IntoIterator<Item = &'a String>, what: &str) {
        let Some(labels) = labels else { return };
        for label in wanted {
            if !labels.contains(label) {
                self.findings.push(format!("{what} has no label {label}; it has {}", list(labels)));
            }
        }
    }
}

/// The value of a matcher that no series can have.
fn impossible(matcher: &Matcher, values: &[&str]) -> Option<String> {
    let value = &matcher.value;
    if value.contains(VARIABLE) || value.is_empty() {
        return None;
    }
    let is_pattern = matches!(matcher.op, MatchOp::Re(_) | MatchOp::NotRe(_));
    let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_|".contains(&byte));
    if !is_pattern || plain {
        // Each alternative separately: one that cannot match is a mistake even if others match.
        let mut alternatives = value.split('|').filter(|_| is_pattern).chain((!is_pattern).then_some(&**value));
        return alternatives.find(|alternative| !values.contains(alternative)).map(str::to_owned);
    }
    let hits = |value: &&&str| matcher.is_match(value) == matches!(matcher.op, MatchOp::Re(_));
    values.iter().find(hits).is_none().then(|| value.clone())
}

/// Labels that a selector fixes to one value.
fn fixed(expr: &Expr) -> BTreeSet<String> {
    let of_selector = |selector: &VectorSelector| {
        let pins = |matcher: &&Matcher| matcher.op == MatchOp::Equal && !matcher.value.contains(VARIABLE);
        selector.matchers.matchers.iter().filter(pins).map(|matcher| matcher.name.clone()).collect()
    };
    match expr {
        Expr::Paren(paren) => fixed(&paren.expr),
        Expr::Subquery(subquery) => fixed(&subquery.expr),
        Expr::VectorSelector(selector) => of_selector(selector),
        Expr::MatrixSelector(matrix) => of_selector(&matrix.vs),
        Expr::Call(call) => call.args.args.iter().flat_map(|argument| fixed(argument)).collect(),
        _ => BTreeSet::new(),
    }
}

pub(crate) fn unwrapped(expr: &Expr) -> &Expr {
    if let Expr::Paren(paren) = expr { unwrapped(&paren.expr) } else { expr }
}

fn with(labels: &BTreeSet<String>, more: &[String]) -> BTreeSet<String> {
    labels.iter().chain(more).cloned().collect()
}

fn without(labels: &BTreeSet<String>, lost: &[String]) -> BTreeSet<String> {
    labels.iter().filter(|label| !lost.contains(label)).cloned().collect()
}

fn list(labels: &BTreeSet<String>) -> String {
    if labels.is_empty() { "none".to_owned() } else { labels.iter().cloned().collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Checks that a query has this finding, or none.
    #[track_caller]
    pub(crate) fn check(text: &str, expected: &str) {
        let findings = Query::check(text, &Names::new()).findings;
        match expected {
            "" => assert_eq!(findings, [""; 0], "{text}"),
            part => assert!(findings.iter().any(|finding| finding.contains(part)), "{text}: {findings:?}"),
        }
    }

    #[test]
    fn names_and_labels_are_those_of_the_catalogue() {
        check("rate(batchsql_errors_total[5m])", "");
        check("rate(batchsql_eror_total[5m])", "did you mean batchsql_errors_total?");
        check("batchsql_batch_size", "batchsql_batch_size_bucket");
        check("batchsql_test_rps_bucket", "there is no metric");
        check("batchsql_buffer_records{table=\"t\"}", "has no label table");
        check("batchsql_buffer_records{job=\"j\", instance=\"i\"}", "");
        check("batchsql_test_rps{le=\"1\"}", "has no label le");
        check("sum by (table) (batchsql_buffer_records)", "has no label table");
        check("sum without (table) (batchsql_buffer_records)", "has no label table");
        check("sum by (database) (sum by (job) (batchsql_buffer_records))", "has no label database");
        check("batchsql_buffer_records > on (table) batchsql_buffer_bytes", "has no label table");
        check("{database=\"d\"}", "without a name");
        check("rate(batchsql_errors_total[5m]", "cannot be parsed");
        check("rate(batchsql_errors_total)", "cannot be parsed");
    }

    #[test]
    fn values_of_closed_sets_must_exist() {
        check("batchsql_batch_execution_total{status=\"failure\"}", "");
        check("batchsql_batch_execution_total{status=\"failed\"}", "success, failure");
        check("batchsql_batch_execution_total{status!=\"failed\"}", "success, failure");
        check("batchsql_records_outcome_total{outcome=~\"purged|expired\"}", "");
        check("batchsql_records_outcome_total{outcome=~\"purged|lost\"}", "outcome=\"lost\"");
        check("batchsql_records_outcome_total{outcome=~\"p.*\"}", "");
        check("batchsql_records_outcome_total{outcome=~\"q.*\"}", "outcome=\"q.*\"");
        check("batchsql_errors_total{error_type=\"timeout\"}", "transient");
        check("batchsql_flushes_total{reason=\"row\"}", "rows, bytes");
        check("batchsql_retries_total{reason=\"rows\"}", "transient");
        check("batchsql_submit_refused_total{reason=\"full\"}", "");
        check("batchsql_memory_usage_mb{type=\"heap\"}", "total_alloc");
        check("batchsql_test_records_total{type=\"alloc\"}", "submitted, actual");
        check("batchsql_pool_connections{state=\"busy\"}", "in_use");
        check("batchsql_errors_total{test_case=\"anything\"}", "");
    }

    #[test]
    fn a_side_that_must_be_unique_is() {
        let (outcomes, received) = ("batchsql_records_outcome_total", "batchsql_records_received_total");
        let on = "on (job, instance, database, table)";
        check(&format!("rate({outcomes}[5m]) / {on} rate({received}[5m])"), "(outcome)");
        check(&format!("rate({outcomes}[5m]) / {on} group_left () rate({received}[5m])"), "");
        check(&format!("rate({outcomes}{{outcome=\"written\"}}[5m]) / {on} rate({received}[5m])"), "");
        check(&format!("rate({outcomes}[5m]) / ignoring (outcome) rate({received}[5m])"), "(outcome)");
        check("batchsql_buffer_records and on (job, instance) batchsql_build_info", "");
        check("batchsql_buffer_records * on (job, instance) group_left (version) batchsql_build_info", "");
        check("batchsql_buffer_records * on (job, instance) group_left () batchsql_build_info", "(version)");
    }

    #[test]
    fn jobs_and_alerts_are_those_of_the_files() {
        let mut names = Names::new();
        let findings = |names: &Names, text: &str| Query::check(text, names).findings.concat();
        assert_eq!(findings(&names, "ALERTS{alertname=\"Any\", job=\"any\"}"), "", "their labels are unknown");
        names.know(["batchsql-app".to_owned()], ["BatchSqlStalled".to_owned()]);
        for fits in [
            "up{job=\"batchsql-app\"}",
            "up{job=~\"batchsql-.+\"}",
            "ALERTS{alertname=\"BatchSqlStalled\", alertstate=\"firing\"}",
        ] {
            assert_eq!(findings(&names, fits), "", "{fits}");
        }
        for (wrong, expected) in [
            ("up{job=\"batchsql-ap\"}", "up has no job=\"batchsql-ap\""),
            ("up{job=~\"batch-.+\"}", "up has no job=\"batch-.+\""),
            ("ALERTS{alertname=\"BatchSqlNothing\"}", "ALERTS has no alertname=\"BatchSqlNothing\""),
            ("ALERTS{alertstate=\"fires\"}", "its values are pending, firing"),
        ] {
            assert!(findings(&names, wrong).contains(expected), "{wrong}: {}", findings(&names, wrong));
        }
    }

    #[test]
    fn sides_with_different_labels_find_no_pair() {
        let (errors, all) = ("rate(batchsql_errors_total[5m])", "rate(batchsql_batch_execution_total[5m])");
        check(&format!("{errors} / {all} * 100"), "always empty");
        check(&format!("{errors} and {all}"), "always empty");
        check(&format!("{errors} unless {all}"), "the whole left side");
        check(&format!("{errors} or {all}"), "");
        check(&format!("sum by (job) ({errors}) / sum by (job) ({all})"), "");
        let shared = "job, instance, database, test_case";
        check(&format!("{errors} / on ({shared}) group_left () sum by ({shared}) ({all})"), "");
        check(&format!("{errors} / on ({shared}) group_left () {all}"), "(status, table)");
        check(&format!("{errors} / ignoring (error_type) {all}"), "always empty");
        check("batchsql_buffer_records / batchsql_buffer_records_limit > 0.9", "");
        check("(time() - batchsql_last_success_timestamp_seconds) > 60", "");
        check("vector(1) + batchsql_buffer_records", "always empty");
    }

    #[test]
    fn the_labels_of_the_result_are_known() {
        let labels = |text: &str| {
            let labels = Query::check(text, &Names::new()).labels;
            labels.map(|labels| list(&labels)).unwrap_or_else(|| "unknown".to_owned())
        };
        let buckets = "rate(batchsql_queue_wait_seconds_bucket[5m])";
        assert_eq!(labels(&format!("histogram_quantile(0.5, sum by (le, database) ({buckets}))")), "database");
        assert_eq!(labels("sum(batchsql_buffer_records)"), "none");
        assert_eq!(labels("topk(3, batchsql_buffer_records)"), "database, instance, job");
        assert_eq!(labels("sum without (instance) (batchsql_buffer_records)"), "database, job");
        assert_eq!(labels("batchsql_buffer_records * on (database) batchsql_buffer_bytes"), "database");
        let joined = "batchsql_buffer_records * on (job, instance) group_left (version) batchsql_build_info";
        assert_eq!(labels(joined), "database, instance, job, version");
        assert_eq!(labels("label_replace(up, \"host\", \"$1\", \"instance\", \"(.*):.*\")"), "host, instance, job");
        assert_eq!(labels("absent(up)"), "unknown");
        assert_eq!(labels("1 + 1"), "none");
    }
}
