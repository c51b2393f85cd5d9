//! Owns the page and the tables of a benchmark: sections with plots and figures.
//! Must not know what was measured, or how a plot is drawn.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::report::page::{self, Kind};

/// Where the figures of a benchmark are for a reader without scripts.
pub(crate) const ELSEWHERE: &str = "The option <code>--json FILE</code>\nof the benchmark writes the same figures.";

/// A page of benchmarks.
#[derive(Debug, Serialize)]
pub struct Page {
    pub(crate) title: String,
    /// Date and machine of the measurement.
    pub(crate) eyebrow: String,
    /// Description of the figures.
    pub(crate) lead: Vec<String>,
    pub(crate) sections: Vec<Section>,
    /// Markup that tells a reader without scripts where the data is.
    #[serde(skip)]
    pub(crate) elsewhere: &'static str,
}

/// A group of figures.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) note: String,
    /// The x axis of all its plots.
    pub(crate) x: Option<Axis>,
    pub(crate) panels: Vec<Panel>,
    pub(crate) table: Option<Sheet>,
}

/// The measured steps.
#[derive(Debug, Serialize)]
pub(crate) struct Axis {
    /// With its unit.
    pub(crate) label: String,
    /// Without it.
    pub(crate) over: String,
    pub(crate) names: Vec<String>,
}

/// A plot.
#[derive(Debug, Serialize)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// A line of a plot, with a value for each step of the axis.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) stroke: Stroke,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dash: Option<[u8; 2]>,
    pub(crate) values: Vec<Option<f64>>,
}

impl Line {
    /// A drawn line.
    pub(crate) fn new(name: impl Into<String>, stroke: Stroke, values: Vec<Option<f64>>) -> Self {
        Self { name: name.into(), stroke, dash: None, values }
    }

    /// The same, dashed.
    pub(crate) fn dashed(mut self) -> Self {
        self.dash = Some([6, 4]);
        self
    }
}

/// The colours of the pages.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stroke {
    First,
    Second,
    Limit,
}

/// A table for the page and for the terminal.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Sheet {
    head: Vec<&'static str>,
    /// Number of text columns at the left; the others are figures.
    text_columns: usize,
    rows: Vec<Vec<String>>,
}

impl Sheet {
    /// A table without rows.
    pub(crate) fn new(text_columns: usize, head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), text_columns, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(&self.head).add_rows(&self.rows);
        let figures = table.column_iter_mut().skip(self.text_columns);
        figures.for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        table.fmt(f)
    }
}

impl Page {
    /// Writes the page, and creates its folder.
    ///
    /// # Errors
    /// The file cannot be written; the message names it.
    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let kind =
            Kind { title: "BatchSQL", elsewhere: self.elsewhere, script: include_str!("../report/assets/bench.js") };
        let text = page::to_string(&kind, self)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Date and machine, the first line of a page.
pub(crate) fn eyebrow() -> String {
    let now = chrono::Utc::now().format("%Y-%m-%d %H:%M UTC");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("BatchSQL {} · {now} · {cpus} processors", env!("CARGO_PKG_VERSION"))
}

/// Number of rounds, as text.
pub(crate) fn medians(rounds: usize) -> String {
    if rounds == 1 { "one round".to_owned() } else { format!("medians of {rounds} interleaved rounds") }
}

/// A rate in short form: `1.20M`, `123k`, `9.5k`.
pub(crate) fn rate(rows_per_second: f64) -> String {
    match rows_per_second {
        rate if rate >= 999_500.0 => format!("{:.2}M", rate / 1e6),
        rate if rate >= 9_950.0 => format!("{:.0}k", rate / 1e3),
        rate => format!("{:.1}k", rate / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_sensible_digits() {
        for (value, text) in
            [(950.0, "0.9k"), (9_940.0, "9.9k"), (9_960.0, "10k"), (999_400.0, "999k"), (8.1e6, "8.10M")]
        {
            assert_eq!(rate(value), text);
        }
    }

    #[test]
    fn a_page_carries_its_figures() {
        let mut table = Sheet::new(1, &["what", "rows/s"]);
        table.push(["</script><img>".to_owned(), rate(1.0e6)]);
        assert!(table.to_string().contains("1.00M"));
        let line = Line::new("ours", Stroke::First, vec![Some(1.0), None]).dashed();
        let section = Section {
            title: "s".to_owned(),
            note: String::new(),
            x: Some(Axis {
                label: "round trip, ms".to_owned(),
                over: "round trip".to_owned(),
                names: vec!["0".to_owned()],
            }),
            panels: vec![Panel { title: "Rate".to_owned(), unit: "rows/s", lines: vec![line] }],
            table: Some(table),
        };
        let page = Page {
            title: "t".to_owned(),
            eyebrow: eyebrow(),
            lead: Vec::new(),
            sections: vec![section],
            elsewhere: ELSEWHERE,
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/page.html");
        page.write(&file).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains(r#""stroke":"first","dash":[6,4],"values":[1.0,null]"#));
        assert!(!text.contains("<img>"));
    }
}
