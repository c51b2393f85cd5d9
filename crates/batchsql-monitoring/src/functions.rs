//! Owns the check of functions inside a query: functions of counters and of gauges, quantiles, comparisons of counters.
//! Must not know labels, or where a query comes from.

use std::collections::BTreeSet;

use batchsql_metrics::MetricKind;
use promql_parser::parser::{BinaryExpr, Call, Expr, VectorSelector};

use crate::names::{Names, Series};
use crate::query::{Query, unwrapped};

/// Functions of counters, which take every decrease for a restart.
const OF_COUNTERS: [&str; 3] = ["rate", "irate", "increase"];
/// Functions of gauges, which take every restart for a decrease.
const OF_GAUGES: [&str; 4] = ["deriv", "delta", "idelta", "predict_linear"];

impl Query {
    /// The value of a counter depends on how long the process has run, so a comparison with a number is a mistake.
    pub(crate) fn compares_total(&mut self, binary: &BinaryExpr, names: &Names) {
        if ![">", "<", ">=", "<=", "==", "!="].contains(&&*binary.op.to_string()) {
            return;
        }
        for (side, other) in [(&binary.lhs, &binary.rhs), (&binary.rhs, &binary.lhs)] {
            let Some((name, series)) = total(side).and_then(|selector| known(selector, names)) else { continue };
            // A comparison with zero is allowed: it tells whether there ever was one.
            let is_zero = matches!(unwrapped(other), Expr::NumberLiteral(number) if number.val == 0.0);
            if series.kind == MetricKind::Counter && !is_zero {
                self.findings.push(format!(
                    "{name} is compared with a number, but grows for as long as the process runs; compare its rate() \
                     or increase()"
                ));
            }
        }
    }

    /// A function over a range must fit the kind of metric.
    pub(crate) fn fits(&mut self, function: &'static str, argument: &Expr, names: &Names) {
        let selector = match unwrapped(argument) {
            Expr::MatrixSelector(matrix) => {
                self.ranges.push((function, matrix.range.as_secs()));
                Some(&matrix.vs)
            }
            Expr::Subquery(subquery) => {
                self.ranges.push((function, subquery.range.as_secs()));
                let is_sum = matches!(unwrapped(&subquery.expr), Expr::Aggregate(_));
                if is_sum && OF_COUNTERS.contains(&function) {
                    self.findings.push(format!(
                        "{function}() of a sum takes a restart of one process for a restart of all processes; \
                         apply {function}() first and sum its results"
                    ));
                }
                total(&subquery.expr)
            }
            _ => None,
        };
        let Some((name, series)) = selector.and_then(|selector| known(selector, names)) else { return };
        if OF_COUNTERS.contains(&function) && series.kind != MetricKind::Counter {
            let what = if series.recorded { "is recorded and goes up and down" } else { "is a gauge" };
            self.findings.push(format!(
                "{function}() of {name}, which {what}: it takes every decrease for a restart and shows growth while \
                 the value falls; use deriv()"
            ));
        }
        if OF_GAUGES.contains(&function) && series.kind != MetricKind::Gauge {
            self.findings
                .push(format!("{function}() of {name}, which only grows and restarts at 0: use rate() or increase()"));
        }
    }

    /// A quantile needs rates of buckets, summed with `le`.
    pub(crate) fn quantile(&mut self, call: &Call, labels: Option<&BTreeSet<String>>) {
        if labels.is_some_and(|labels| !labels.contains("le")) {
            self.findings
                .push("histogram_quantile() without `le` is always empty; keep le: sum by (le, ...)".to_owned());
            return;
        }
        if let Some(Expr::NumberLiteral(quantile)) = call.args.args.first().map(|argument| unwrapped(argument))
            && !(0.0..=1.0).contains(&quantile.val)
        {
            self.findings.push(format!("there is no quantile {}; use a number from 0 to 1, as in 0.99", quantile.val));
        }
        let summed = match call.args.args.get(1).map(|argument| unwrapped(argument)) {
            Some(Expr::Aggregate(aggregate)) if aggregate.op.to_string() == "sum" => Some(&aggregate.expr),
            _ => None,
        };
        match summed.map(|expr| unwrapped(expr)) {
            None => self.findings.push(
                "histogram_quantile() of buckets that are not summed gives one quantile for each table, status and \
                 test case; sum them first: sum by (le, database) (rate(...))"
                    .to_owned(),
            ),
            Some(Expr::Call(inner)) if OF_COUNTERS.contains(&inner.func.name) => {}
            Some(_) => self.findings.push(
                "histogram_quantile() of buckets without rate() covers the whole time since the start; use \
                 sum by (le, ...) (rate(...))"
                    .to_owned(),
            ),
        }
    }
}

/// The selector of an expression, or of its sum, without a function.
fn total(expr: &Expr) -> Option<&VectorSelector> {
    match expr {
        Expr::Paren(paren) => total(&paren.expr),
        Expr::Aggregate(aggregate) if ["sum", "max", "min", "avg"].contains(&&*aggregate.op.to_string()) => {
            total(&aggregate.expr)
        }
        Expr::VectorSelector(selector) => Some(selector),
        _ => None,
    }
}

fn known<'a>(selector: &'a VectorSelector, names: &'a Names) -> Option<(&'a String, &'a Series)> {
    let name = selector.name.as_ref()?;
    Some((name, names.get(name)?))
}

#[cfg(test)]
mod tests {
    use crate::query::tests::check;

    #[test]
    fn functions_fit_the_kind() {
        check("rate(batchsql_memory_usage_mb{type=\"alloc\"}[5m])", "use deriv()");
        check("increase((batchsql_test_rps[5m]))", "use deriv()");
        check("deriv(batchsql_memory_usage_mb{type=\"alloc\"}[5m])", "");
        check("deriv(batchsql_errors_total[5m])", "use rate()");
        check("rate(batchsql_batch_size_sum[5m])", "");
        check("rate(batchsql_buffer_records[5m:15s])", "use deriv()");
        check("deriv(batchsql_errors_total[5m:15s])", "use rate()");
        check("increase(sum(batchsql_errors_total)[5m:15s])", "a restart of one process for a restart of all");
        check("max_over_time(sum(batchsql_buffer_records)[5m:15s])", "");
        check("max_over_time(sum(rate(batchsql_errors_total[5m]))[1h:1m])", "");
        check("max_over_time(batchsql_test_rps[5m])", "");
    }

    #[test]
    fn quantiles_keep_le_and_are_taken_of_sums() {
        let buckets = "rate(batchsql_batch_execution_duration_seconds_bucket[5m])";
        check(&format!("histogram_quantile(0.99, sum by (le, database) ({buckets}))"), "");
        check(&format!("histogram_quantile(0.99, sum by (database) ({buckets}))"), "keep le");
        check(&format!("histogram_quantile(0.99, {buckets})"), "sum them first");
        check("histogram_quantile(0.9, sum(rate(batchsql_batch_size_sum[5m])))", "keep le");
        check(&format!("histogram_quantile(99, sum by (le) ({buckets}))"), "there is no quantile 99");
        check(&format!("histogram_quantile(0.99, max by (le) ({buckets}))"), "sum them first");
        let all_time = "sum by (le) (batchsql_batch_execution_duration_seconds_bucket)";
        check(&format!("histogram_quantile(0.99, {all_time})"), "without rate()");
    }

    #[test]
    fn a_counter_is_not_compared_as_it_is() {
        check("batchsql_errors_total > 100", "grows for as long as");
        check("100 < sum by (job) (batchsql_errors_total)", "grows for as long as");
        check("batchsql_errors_total > 0", "");
        check("increase(batchsql_errors_total[5m]) > 100", "");
        check("count(batchsql_errors_total) > 100", "");
        check("batchsql_buffer_records > 100", "");
    }
}
