//! Owns the presentation of figures at a distance: tables and plots.
//! Must not know how they were measured.

use super::distance::{Distance, Load, Point};
use super::paced::Latency;
use super::page::{Axis, ELSEWHERE, Line, Page, Panel, Section, Sheet, Stroke, eyebrow, medians, rate};

impl Distance {
    /// The tables for the terminal.
    pub fn tables(&self) -> String {
        let points: Vec<&Point> = self.results.iter().collect();
        let mut text = format!("throughput, {}\n{}", medians(self.rounds), throughput(&points));
        let latency = latency(&points);
        if points.iter().any(|point| !point.latency.is_empty()) {
            text.push_str(&format!("\n\nlatency from the time when a row was due to its outcome\n{latency}"));
        }
        for left_out in &self.left_out {
            text.push_str(&format!("\nskipped for lack of time: {left_out}"));
        }
        text
    }

    /// The page with the plots.
    pub fn page(&self) -> Page {
        let mut lead = vec![
            format!(
                "The pipeline with its default settings and {} producers, and hand-written loops with at most {} rows \
                 in flight, which is the capacity of the buffer. All connections use a proxy that adds the round trip. \
                 {} rows for each contender; {}.",
                self.producers,
                self.buffer_size,
                self.rows,
                medians(self.rounds)
            ),
            "Figures in rows per second depend on the machine and its other load; only ratios within one run can be \
             compared."
                .to_owned(),
        ];
        if !self.left_out.is_empty() {
            lead.push(format!("Skipped for lack of time: {}.", self.left_out.join("; ")));
        }
        Page {
            title: "BatchSQL at a distance".to_owned(),
            eyebrow: eyebrow(),
            lead,
            sections: self.sections(),
            elsewhere: ELSEWHERE,
        }
    }

    fn sections(&self) -> Vec<Section> {
        let mut groups: Vec<Vec<&Point>> = Vec::new();
        for point in &self.results {
            let same =
                |group: &&mut Vec<&Point>| (group[0].database, group[0].workload) == (point.database, point.workload);
            match groups.iter_mut().find(same) {
                Some(group) => group.push(point),
                None => groups.push(vec![point]),
            }
        }
        groups.iter().flat_map(|points| [throughput_section(points), latency_section(points)]).flatten().collect()
    }
}

fn axis(points: &[&Point]) -> Axis {
    let names = points.iter().map(|point| point.rtt_ms.to_string()).collect();
    Axis { label: "round trip, ms".to_owned(), over: "round trip".to_owned(), names }
}

fn throughput_section(points: &[&Point]) -> Option<Section> {
    let first = points.first()?;
    let of = |pick: fn(&Point) -> f64| points.iter().map(|point| Some(pick(point))).collect();
    let way = first.hand.first().map_or("", |hand| hand.way);
    let rates = Panel {
        title: "Throughput".to_owned(),
        unit: "rows/s",
        lines: vec![
            Line::new("default settings", Stroke::First, of(|point| point.rows_per_s)),
            Line::new("best hand-written loop", Stroke::Second, of(|point| point.best_hand)),
            Line::new("fixed batches of 500", Stroke::Limit, of(|point| point.fixed_rows_per_s)).dashed(),
        ],
    };
    let ratios = Panel {
        title: "Default settings to best hand-written loop".to_owned(),
        unit: "ratio",
        lines: vec![
            Line::new("default settings", Stroke::First, of(|point| point.ratio)),
            Line::new("aim 0.9", Stroke::Limit, of(|_| 0.9)).dashed(),
        ],
    };
    Some(Section {
        title: format!("{}, {}", first.database, first.workload),
        note: format!("Hand-written: {way}, the best of {}.", loops(first)),
        x: Some(axis(points)),
        panels: vec![rates, ratios],
        table: Some(throughput(points)),
    })
}

fn loops(point: &Point) -> String {
    let loops: Vec<_> = point.hand.iter().map(|hand| format!("{} x {}", hand.batch, hand.connections)).collect();
    format!("{} (rows of a batch x connections)", loops.join(", "))
}

fn latency_section(points: &[&Point]) -> Option<Section> {
    let measured: Vec<&Point> = points.iter().copied().filter(|point| !point.latency.is_empty()).collect();
    let first = measured.first()?;
    let panel = |place: usize, load: &Load| {
        let of = |pick: fn(&Load) -> f64| measured.iter().map(|point| point.latency.get(place).map(pick)).collect();
        Panel {
            title: format!("Latency at {:.0} % load", load.load * 100.0),
            unit: "ms",
            lines: vec![
                Line::new("default p99", Stroke::First, of(|load| load.default.p99_ms)),
                Line::new("p50", Stroke::First, of(|load| load.default.p50_ms)).dashed(),
                Line::new("fixed p99", Stroke::Second, of(|load| load.fixed.p99_ms)),
                Line::new("p50", Stroke::Second, of(|load| load.fixed.p50_ms)).dashed(),
            ],
        }
    };
    Some(Section {
        title: format!("{}, {}, latency", first.database, first.workload),
        note: "From the time when a row was due to its outcome; 100 % is the throughput of fixed batches of 500 rows."
            .to_owned(),
        x: Some(axis(&measured)),
        panels: first.latency.iter().enumerate().map(|(place, load)| panel(place, load)).collect(),
        table: Some(latency(&measured)),
    })
}

fn throughput(points: &[&Point]) -> Sheet {
    let head =
        ["database", "workload", "best hand loop", "RTT ms", "by hand", "fixed 500", "default", "range", "ratio"];
    let mut sheet = Sheet::new(3, &head);
    for point in points {
        let (low, high) = point.rows_per_s_range;
        let way = point.hand.first().map_or("", |hand| hand.way);
        sheet.push([
            point.database.to_owned(),
            point.workload.to_owned(),
            format!("{way} {}", point.best_hand_loop),
            point.rtt_ms.to_string(),
            rate(point.best_hand),
            rate(point.fixed_rows_per_s),
            rate(point.rows_per_s),
            format!("{} to {}", rate(low), rate(high)),
            format!("{:.2}", point.ratio),
        ]);
    }
    sheet
}

fn latency(points: &[&Point]) -> Sheet {
    let head = ["database", "workload", "RTT ms", "load", "rows/s", "p50 default", "fixed", "p99 default", "fixed"];
    let mut sheet = Sheet::new(2, &head);
    let ms = |latency: &Latency, pick: fn(&Latency) -> f64| format!("{:.1}", pick(latency));
    for point in points {
        for load in &point.latency {
            sheet.push([
                point.database.to_owned(),
                point.workload.to_owned(),
                point.rtt_ms.to_string(),
                format!("{:.0} %", load.load * 100.0),
                rate(load.rows_per_s),
                ms(&load.default, |latency| latency.p50_ms),
                ms(&load.fixed, |latency| latency.p50_ms),
                ms(&load.default, |latency| latency.p99_ms),
                ms(&load.fixed, |latency| latency.p99_ms),
            ]);
        }
    }
    sheet
}
