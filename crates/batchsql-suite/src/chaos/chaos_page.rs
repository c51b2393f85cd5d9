//! Owns the page of the results: the table, and the curves of each run.
//! Must not know how a plot is drawn.

use super::fault::Fault;
use super::results::{HEADS, Results, Run, TEXT_COLUMNS, pool};
use super::sample::Sample;
use crate::bench::{Axis, Line, Page, Panel, Section, Sheet, Stroke, eyebrow};

/// Milliseconds of one step of a curve.
const STEP: u64 = 500;

/// The page of all runs.
pub(super) fn page(results: &Results, runs: &[Run]) -> Page {
    let mut sheet = Sheet::new(TEXT_COLUMNS, &HEADS);
    results.results.iter().for_each(|sum| sheet.push(sum.cells()));
    let mut wrong = Sheet::new(1, &["what is wrong"]);
    results.results.iter().flat_map(|sum| &sum.details).for_each(|detail| wrong.push([detail.clone()]));
    let lead = vec![
        "Faults on real servers under load. A checker that is independent of the library compared what the writers noted on \
         disk with what is in the tables."
            .to_owned(),
        format!("Seed {}. To repeat: {}", results.seed, results.command),
    ];
    let (heads, rows) = results.matrix();
    let mut matrix = Sheet::new(heads.len(), &heads);
    rows.into_iter().for_each(|row| matrix.push(row));
    let note =
        "The time is the longest from the end of the fault to the first row that was written after it.".to_owned();
    let mut sections =
        vec![section("Faults by database", note, Some(matrix)), section("Figures", String::new(), Some(sheet))];
    if !results.passed() {
        sections.push(section("Violations", String::new(), Some(wrong)));
    }
    sections.extend(runs.iter().filter_map(curves));
    Page {
        title: "BatchSQL chaos".to_owned(),
        eyebrow: eyebrow(),
        lead,
        sections,
        elsewhere: "The same figures are in\n<code>chaos.json</code> beside this file.",
    }
}

fn section(title: &str, note: String, table: Option<Sheet>) -> Section {
    Section { title: title.to_owned(), note, x: None, panels: Vec::new(), table }
}

/// The curves of a run: rows per second, and when there were faults.
fn curves(run: &Run) -> Option<Section> {
    let outcome = run.outcome.as_ref().ok()?;
    let begin = outcome.samples.first()?.first()?.at;
    let end = outcome.samples.iter().filter_map(|samples| samples.last()).map(|sample| sample.at).max()?;
    let steps = usize::try_from((end - begin) / STEP + 1).ok()?;
    let written = rates(&outcome.samples, begin, steps, |sample| sample.written);
    let failed = rates(&outcome.samples, begin, steps, |sample| sample.failed);
    let top = written.iter().copied().fold(1.0, f64::max);
    let is_faulty = |step: usize| {
        let (from, to) = (begin + step as u64 * STEP, begin + (step as u64 + 1) * STEP);
        outcome.faults.iter().any(|(_, begin, end)| *begin < to && from < *end)
    };
    let fault = (0..steps).map(|step| if is_faulty(step) { Some(top) } else { Some(0.0) }).collect();
    let known = |values: Vec<f64>| values.into_iter().map(Some).collect();
    let lines = vec![
        Line::new("written", Stroke::First, known(written)),
        Line::new("failed", Stroke::Second, known(failed)),
        Line::new("fault", Stroke::Limit, fault).dashed(),
    ];
    let names = (0..steps).map(|step| format!("{:.1}", step as f64 * STEP as f64 / 1_000.0)).collect();
    let mut faults: Vec<Fault> = outcome.faults.iter().map(|(fault, ..)| *fault).collect();
    faults.dedup();
    let what: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.name(), fault.what())).collect();
    Some(Section {
        title: format!(
            "{}, {}, run {} ({})",
            run.plan.database.name(),
            run.plan.name,
            run.plan.number,
            pool(&run.plan)
        ),
        note: what.join("; "),
        x: Some(Axis { label: "time, s".to_owned(), over: "time".to_owned(), names }),
        panels: vec![Panel { title: "Rows".to_owned(), unit: "rows/s", lines }],
        table: None,
    })
}

/// Rows per second in each step, over the writers of a run, each of which counts from 0.
fn rates(writers: &[Vec<Sample>], begin: u64, steps: usize, count: fn(&Sample) -> u64) -> Vec<f64> {
    let mut rates = vec![0.0; steps];
    for samples in writers {
        let mut before = 0;
        for sample in samples {
            let step = usize::try_from(sample.at.saturating_sub(begin) / STEP).unwrap_or(usize::MAX);
            let more = count(sample).saturating_sub(before);
            before = count(sample).max(before);
            if let Some(rate) = rates.get_mut(step) {
                *rate += more as f64 * 1_000.0 / STEP as f64;
            }
        }
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_all_writers() {
        let sample = |at, written| Sample { at, written, ..Sample::default() };
        let writers = [vec![sample(1_000, 10), sample(1_400, 20), sample(1_600, 25)], vec![sample(2_100, 5)]];
        assert_eq!(rates(&writers, 1_000, 3, |sample| sample.written), [40.0, 10.0, 10.0]);
    }
}
