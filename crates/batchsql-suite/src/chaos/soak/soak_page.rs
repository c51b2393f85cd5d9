//! Owns the page of the results: the table, and the curves of each database.
//! Must not know how a plot is drawn.

use super::conductor::{Disturbance, Outcome};
use super::reading::Figure;
use super::results::{HEADS, Results, TEXT_COLUMNS, judge, points};
use super::trend::Point;
use crate::bench::{Axis, Line, Page, Panel, Section, Sheet, Stroke, eyebrow};
use crate::database::DatabaseName;

/// Steps of a curve.
const STEPS: usize = 240;

/// The page of all databases.
pub(super) fn page(results: &Results, outcomes: &[(DatabaseName, Outcome)]) -> Page {
    let mut sheet = Sheet::new(TEXT_COLUMNS, &HEADS);
    results.results.iter().flat_map(|soaked| soaked.rows()).for_each(|row| sheet.push(row));
    let mut sections = vec![section("Results", "", Some(sheet))];
    if !results.passed() {
        let mut wrong = Sheet::new(1, &["what is wrong"]);
        results.complaints().into_iter().for_each(|complaint| wrong.push([complaint]));
        sections.push(section("Wrong", "", Some(wrong)));
    }
    sections.extend(outcomes.iter().filter_map(|(database, outcome)| curves(*database, outcome)));
    Page {
        title: "BatchSQL soak".to_owned(),
        eyebrow: eyebrow(),
        lead: vec![format!(
            "Mixed load, {}, and faults in turn on real servers for {} s after a warm-up. Each figure is compared between the \
             first and the last quarter of that time, without the times of faults.",
            results.mode, results.duration_s
        )],
        sections,
        elsewhere: "The same figures are in\n<code>soak.json</code> beside this file.",
    }
}

fn section(title: &str, note: &str, table: Option<Sheet>) -> Section {
    Section { title: title.to_owned(), note: note.to_owned(), x: None, panels: Vec::new(), table }
}

/// The curves of a database, with the warm-up.
fn curves(database: DatabaseName, outcome: &Outcome) -> Option<Section> {
    let (first, last) = (outcome.readings.first()?.at, outcome.readings.last()?.at);
    let step = ((last - first) / STEPS as u64 + 1).max(1);
    let steps = Steps { first, step, count: usize::try_from((last - first) / step + 1).ok()? };
    let judged = judge(database, outcome).figures;
    let mut panels = vec![steps.rates(outcome)];
    for figure in Figure::ALL {
        let points = points(&outcome.readings, figure);
        if points.is_empty() {
            continue;
        }
        let mut lines = vec![
            Line::new("lowest", Stroke::First, steps.each(&points, f64::min)),
            Line::new("highest", Stroke::Second, steps.each(&points, f64::max)),
        ];
        if let Some(judged) = judged.iter().find(|judged| judged.figure == figure.name()) {
            let limit = vec![Some(judged.begin + judged.tolerance); steps.count];
            lines.push(Line::new("most at the end", Stroke::Limit, limit).dashed());
        }
        let mut title = figure.name().to_owned();
        title[..1].make_ascii_uppercase();
        panels.push(Panel { title, unit: figure.unit(), lines });
    }
    let measured = outcome.measured.0.saturating_sub(first) as f64 / 60_000.0;
    Some(Section {
        title: database.name().to_owned(),
        note: format!("The first {measured:.1} minutes are the warm-up."),
        x: Some(Axis { label: "time, min".to_owned(), over: "time".to_owned(), names: steps.names() }),
        panels,
        table: None,
    })
}

/// The steps of curves, in milliseconds.
struct Steps {
    first: u64,
    step: u64,
    count: usize,
}

impl Steps {
    fn names(&self) -> Vec<String> {
        (0..self.count).map(|at| format!("{:.1}", at as f64 * self.step as f64 / 60_000.0)).collect()
    }

    fn of(&self, at: u64) -> usize {
        usize::try_from(at.saturating_sub(self.first) / self.step).unwrap_or(usize::MAX).min(self.count - 1)
    }

    /// The readings of each step, as one.
    fn each(&self, points: &[Point], choose: fn(f64, f64) -> f64) -> Vec<Option<f64>> {
        let mut values: Vec<Option<f64>> = vec![None; self.count];
        for (at, value) in points {
            let known = &mut values[self.of(*at)];
            *known = Some(known.map_or(*value, |known| choose(known, *value)));
        }
        values
    }

    /// Rows per second, and when there were faults.
    fn rates(&self, outcome: &Outcome) -> Panel {
        let mut rows = vec![0.0; self.count];
        for pair in outcome.readings.windows(2) {
            rows[self.of(pair[1].at)] += pair[1].written.saturating_sub(pair[0].written) as f64;
        }
        let rates: Vec<f64> = rows.into_iter().map(|rows| rows * 1_000.0 / self.step as f64).collect();
        let top = rates.iter().copied().fold(1.0, f64::max);
        let fault = (0..self.count as u64).map(|at| {
            let (from, to) = (self.first + at * self.step, self.first + (at + 1) * self.step);
            let is_faulty = |known: &Disturbance| known.begin < to && from < known.end;
            Some(if outcome.disturbances.iter().any(is_faulty) { top } else { 0.0 })
        });
        let lines = vec![
            Line::new("written", Stroke::First, rates.into_iter().map(Some).collect()),
            Line::new("fault", Stroke::Limit, fault.collect()).dashed(),
        ];
        Panel { title: "Rows".to_owned(), unit: "rows/s", lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::soak::reading::Reading;

    #[test]
    fn a_long_run_becomes_a_curve() {
        let read = |second: u64| Reading {
            at: 5_000 + second * 1_000,
            tasks: Some(second % 10),
            written: second * 600,
            ..Reading::default()
        };
        let outcome = Outcome { readings: (0..2_400).map(read).collect(), ..Outcome::default() };
        let section = curves(DatabaseName::Redis, &outcome).unwrap();
        assert_eq!(section.x.unwrap().names.len(), STEPS);
        // Rows, and the one figure that was read.
        let [rows, tasks] = &section.panels[..] else { panic!("{:?}", section.panels) };
        let middle = |panel: &Panel, line: usize| panel.lines[line].values[STEPS / 2].unwrap();
        assert!((middle(rows, 0) - 600.0).abs() < 70.0, "{}", middle(rows, 0));
        assert_eq!((middle(tasks, 0), middle(tasks, 1)), (0.0, 9.0));
        assert!(curves(DatabaseName::Redis, &Outcome::default()).is_none());
    }
}
