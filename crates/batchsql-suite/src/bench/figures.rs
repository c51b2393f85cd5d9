//! Owns the arithmetic and the table of benchmark figures.
//! Must not know what is measured.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// The amount of measurement.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Interleaved rounds.
    pub rounds: usize,
    /// Rows of one measurement.
    pub rows: usize,
}

/// The result of one contender in one round.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measurement {
    /// Rows per second.
    pub rate: f64,
    /// Allocations per row, if counted.
    pub allocations: Option<f64>,
}

/// The median of one contender, and its ratio to the baseline of its group.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// The group of contenders.
    pub group: String,
    /// The contender.
    pub name: String,
    /// Median rows per second.
    pub rows_per_second: f64,
    /// Slowest and fastest round.
    pub range: (f64, f64),
    /// Median over the rounds of the rate divided by the baseline's rate in the same round; `None` for
    /// the baseline.
    pub ratio: Option<f64>,
    /// Median allocations per row, if counted.
    pub allocations_per_row: Option<f64>,
}

/// Summarises rounds; the first contender is the baseline.
pub(super) fn summarise(group: &str, names: &[&str], rounds: &[Vec<Measurement>]) -> Vec<Figure> {
    let contender = |(index, name): (usize, &&str)| {
        let rates: Vec<f64> = rounds.iter().map(|round| round[index].rate).collect();
        let ratios = rounds.iter().map(|round| round[index].rate / round[0].rate).collect();
        let allocations: Vec<f64> = rounds.iter().filter_map(|round| round[index].allocations).collect();
        Figure {
            group: group.to_owned(),
            name: (*name).to_owned(),
            rows_per_second: median(rates.clone()),
            range: (rates.iter().copied().fold(f64::MAX, f64::min), rates.iter().copied().fold(0.0, f64::max)),
            ratio: (index > 0).then(|| median(ratios)),
            allocations_per_row: (!allocations.is_empty()).then(|| median(allocations)),
        }
    };
    names.iter().enumerate().map(contender).collect()
}

/// Of an even number the upper one of the two in the middle; 0 if there is none.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

/// The figures as a table.
pub fn table(figures: &[Figure]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["group", "contender", "rows/s (median)", "range", "ratio", "allocations/row"]);
    for figure in figures {
        table.add_row([
            figure.group.clone(),
            figure.name.clone(),
            thousands(figure.rows_per_second),
            format!("{} to {}", thousands(figure.range.0), thousands(figure.range.1)),
            figure.ratio.map_or_else(|| "1 (baseline)".to_owned(), |ratio| format!("{ratio:.2}")),
            figure.allocations_per_row.map_or_else(String::new, |count| format!("{count:.3}")),
        ]);
    }
    for column in 2..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn thousands(rate: f64) -> String {
    format!("{:.0}k", rate / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let at = |rate| Measurement { rate, allocations: None };
        // The machine was slow in the second round, for both.
        let rounds = [vec![at(100.0), at(90.0)], vec![at(10.0), at(9.0)], vec![at(100.0), at(90.0)]];
        let figures = summarise("g", &["base", "other"], &rounds);
        assert_eq!(figures[0].ratio, None);
        assert!((figures[1].ratio.unwrap() - 0.9).abs() < 1e-9);
        assert_eq!(figures[1].rows_per_second, 90.0);
    }
}
