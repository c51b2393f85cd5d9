//! Owns the presentation of scaling figures: tables and plots.
//! Must not know how they were measured.

use super::page::{Axis as Steps, ELSEWHERE, Line, Page, Panel, Section, Sheet, Stroke, eyebrow, medians, rate};
use super::scale::{Axis, Curve, Kind, Scale};

impl Scale {
    /// The tables for the terminal.
    pub fn tables(&self) -> String {
        let mut text = format!("growth, {}\n{}", medians(self.rounds), growth(self.results.iter()));
        text.push_str(&format!("\n\na producer that works 1 ms per row and never awaits\n{}", self.busy()));
        for left_out in &self.left_out {
            text.push_str(&format!("\nskipped for lack of time: {left_out}"));
        }
        text
    }

    /// The page with the plots.
    pub fn page(&self) -> Page {
        let mut lead = vec![format!(
            "Throughput while one quantity grows and the others stay: 10 producers, one table. With more tables the \
             buffer grows to 1,000 rows each. The ratio is to the best point of its axis; {}.",
            medians(self.rounds)
        )];
        if !self.left_out.is_empty() {
            lead.push(format!("Skipped for lack of time: {}.", self.left_out.join("; ")));
        }
        let mut sections: Vec<Section> = Vec::new();
        let mut sinks: Vec<&str> = self.results.iter().map(|curve| curve.sink).collect();
        sinks.dedup();
        for sink in sinks {
            sections.extend(Axis::ALL.into_iter().filter_map(|axis| self.section(sink, axis)));
        }
        sections.push(Section {
            title: "A busy producer".to_owned(),
            note: "It works 1 ms for each row and submits it, without awaiting anything else, on a runtime with two \
                   threads. The longest time from submit to outcome."
                .to_owned(),
            x: None,
            panels: Vec::new(),
            table: Some(self.busy()),
        });
        Page { title: "BatchSQL, growth".to_owned(), eyebrow: eyebrow(), lead, sections, elsewhere: ELSEWHERE }
    }

    fn section(&self, sink: &str, axis: Axis) -> Option<Section> {
        let curves: Vec<&Curve> =
            self.results.iter().filter(|curve| curve.sink == sink && curve.axis == axis).collect();
        let longest = curves.iter().max_by_key(|curve| curve.points.len())?;
        let values: Vec<usize> = longest.points.iter().map(|point| point.value).collect();
        let names = values.iter().map(|value| short(*value)).collect();
        let panel = |title: &str, unit, pick: fn(&super::scale::Point) -> f64| {
            let line = |curve: &&Curve| {
                let at = |value: &usize| curve.points.iter().find(|point| point.value == *value).map(pick);
                let stroke = if curve.kind == Kind::Typed { Stroke::First } else { Stroke::Second };
                Line::new(format!("{} rows", curve.kind.name()), stroke, values.iter().map(at).collect())
            };
            Panel { title: title.to_owned(), unit, lines: curves.iter().map(line).collect() }
        };
        Some(Section {
            title: format!("{}, {}", if sink == "null" { "pipeline alone" } else { sink }, axis.name()),
            note: String::new(),
            x: Some(Steps { label: axis.name().to_owned(), over: axis.name().to_owned(), names }),
            panels: vec![
                panel("Throughput", "rows/s", |point| point.rows_per_s),
                panel("Step to best step of the axis", "ratio", |point| point.ratio),
            ],
            table: Some(growth(curves.iter().copied())),
        })
    }

    fn busy(&self) -> Sheet {
        let busy = &self.busy_producer;
        let mut sheet = Sheet::new(0, &["flush interval ms", "busy for ms", "longest ms per round", "x interval"]);
        let longest: Vec<_> = busy.longest_ms.iter().map(|ms| format!("{ms:.0}")).collect();
        sheet.push([
            format!("{:.0}", busy.flush_interval_ms),
            format!("{:.0}", busy.busy_ms),
            longest.join(", "),
            format!("{:.2}", busy.intervals),
        ]);
        sheet
    }
}

fn growth<'a>(curves: impl Iterator<Item = &'a Curve>) -> Sheet {
    let mut sheet = Sheet::new(3, &["sink", "rows", "axis", "step", "rows/s", "range", "ratio"]);
    for curve in curves {
        for point in &curve.points {
            sheet.push([
                curve.sink.to_owned(),
                curve.kind.name().to_owned(),
                curve.axis.name().to_owned(),
                short(point.value),
                rate(point.rows_per_s),
                format!("{} to {}", rate(point.range.0), rate(point.range.1)),
                format!("{:.2}", point.ratio),
            ]);
        }
    }
    sheet
}

/// `10000` as `10k`.
fn short(value: usize) -> String {
    match value {
        value if value >= 1_000_000 && value.is_multiple_of(1_000_000) => format!("{}M", value / 1_000_000),
        value if value >= 10_000 && value.is_multiple_of(1_000) => format!("{}k", value / 1_000),
        value => value.to_string(),
    }
}
