//! The table that a run prints at its end, with as many columns as fit the terminal.
//! Must not know the terminal: the caller passes its width.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::model::{CaseResult, Latency, Report};
use super::number::{NONE, count, measure, percent};

/// A column: its heading, its alignment and its value for a case.
struct Column {
    heading: &'static str,
    align: CellAlignment,
    show: fn(&CaseResult) -> String,
    /// Columns with lower weights are removed first if the terminal is too narrow.
    weight: u8,
}

const COLUMNS: [Column; 10] = [
    column("database", CellAlignment::Left, 7, |case| plain(&case.result.database)),
    column("case", CellAlignment::Left, 9, |case| plain(&case.result.test_name)),
    column("records", CellAlignment::Right, 6, |case| ran(case, count(case.result.total_records))),
    column("rate\nrec/s", CellAlignment::Right, 8, rate),
    column("batch\np50 ms", CellAlignment::Right, 1, |case| millis(case.batch_latency.as_ref(), |l| l.p50_ms)),
    column("batch\np99 ms", CellAlignment::Right, 4, |case| millis(case.batch_latency.as_ref(), |l| l.p99_ms)),
    column("row\np99 ms", CellAlignment::Right, 2, |case| millis(case.row_latency.as_ref(), |l| l.p99_ms)),
    column("memory\npeak MB", CellAlignment::Right, 3, |case| ran(case, measure(case.memory.peak_mb))),
    column("integrity\n%", CellAlignment::Right, 5, |case| ran(case, percent(case.result.data_integrity_rate))),
    column("status", CellAlignment::Left, 9, |case| case.status().as_str().to_owned()),
];

/// Columns with at least this weight are never removed.
const ESSENTIAL: u8 = 7;

/// The table and a line with the verdict, without a newline at the end.
///
/// `width` is the width of the terminal in characters, `None` for no limit (a file, a CI log). If the
/// table does not fit, the least important columns are removed; if even the rest does not fit, each
/// case becomes a short paragraph.
pub fn render(report: &Report, width: Option<usize>) -> String {
    let width = width.unwrap_or(usize::MAX);
    let body = (0..=ESSENTIAL)
        .map(|least| table(report, least))
        .find(|text| text.lines().all(|line| line.chars().count() <= width))
        .unwrap_or_else(|| paragraphs(report));
    let mut out = body;
    if report.results.iter().any(|case| !case.skipped && !case.result.rps_valid) {
        out.push_str("\n* rate not comparable, see the report");
    }
    out.push('\n');
    out.push_str(&verdict(report));
    out
}

/// One line with the result of the run.
pub fn verdict(report: &Report) -> String {
    let summary = &report.summary;
    let word = match (summary.success, summary.failed, summary.interrupted) {
        (true, ..) => "PASSED",
        (false, 1.., _) => "FAILED",
        (false, 0, true) => "INTERRUPTED",
        (false, 0, false) => "NOTHING PASSED",
    };
    format!(
        "{word}: {} of {} cases passed, {} failed, {} skipped; {} records in {} s{}",
        summary.passed,
        summary.total,
        summary.failed,
        summary.skipped,
        count(summary.records),
        measure(summary.duration_seconds),
        if summary.interrupted { "; stopped before its end" } else { "" },
    )
}

const fn column(heading: &'static str, align: CellAlignment, weight: u8, show: fn(&CaseResult) -> String) -> Column {
    Column { heading, align, show, weight }
}

fn table(report: &Report, least: u8) -> String {
    let columns = || COLUMNS.iter().filter(|column| column.weight >= least);
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns().map(|column| Cell::new(column.heading).set_alignment(column.align)));
    for case in &report.results {
        table.add_row(columns().map(|column| Cell::new((column.show)(case)).set_alignment(column.align)));
    }
    table.to_string()
}

fn paragraphs(report: &Report) -> String {
    let mut lines = Vec::new();
    for case in &report.results {
        for column in &COLUMNS {
            lines.push(format!("{}: {}", column.heading.replace('\n', " "), (column.show)(case)));
        }
        lines.push(String::new());
    }
    lines.join("\n")
}

fn rate(case: &CaseResult) -> String {
    let mark = if case.result.rps_valid { "" } else { "*" };
    ran(case, format!("{}{mark}", measure(case.result.records_per_second)))
}

fn millis(latency: Option<&Latency>, pick: fn(&Latency) -> f64) -> String {
    latency.map_or_else(|| NONE.to_owned(), |latency| measure(pick(latency)))
}

fn ran(case: &CaseResult, text: String) -> String {
    if case.skipped { NONE.to_owned() } else { text }
}

/// Removes characters that move the cursor or break the row.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Summary, sample};

    #[test]
    fn columns_go_before_lines_overflow() {
        let report = sample::report();
        let columns = |text: &str| text.lines().nth(1).map_or(0, |heading| heading.matches(['│', '┆']).count() - 1);
        let mut before = usize::MAX;
        for (width, at_least) in [(None, 10), (Some(130), 10), (Some(100), 7), (Some(80), 5), (Some(60), 4)] {
            let text = render(&report, width);
            let shown = columns(&text);
            assert!(shown >= at_least && shown <= before, "{width:?}: {shown} columns\n{text}");
            before = shown;
            let table = text.lines().filter(|line| line.starts_with(['│', '┌', '╞', '└']));
            assert!(table.clone().count() >= report.results.len() + 4, "{text}");
            for line in table {
                assert!(line.chars().count() <= width.unwrap_or(usize::MAX), "{width:?}: {line}");
            }
        }
    }

    #[test]
    fn a_very_narrow_terminal_gets_paragraphs_with_every_figure() {
        let text = render(&sample::report(), Some(20));
        assert!(!text.contains('│'), "{text}");
        assert_eq!(text.matches("\nstatus: ").count(), sample::report().results.len(), "{text}");
    }

    #[test]
    fn shows_figures_status_and_verdict() {
        let text = render(&sample::report(), None);
        assert_eq!(text.matches("FAILED").count(), 2, "{text}");
        assert_eq!(text.matches(" passed │").count(), 7, "{text}");
        assert!(
            text.lines().last().unwrap().starts_with("FAILED: 7 of 8 cases passed, 1 failed, 0 skipped; "),
            "{text}"
        );
        assert!(text.contains("* rate not comparable"), "{text}");
        assert!(render(&sample::edges(), None).contains("┆ skipped │"));
    }

    #[test]
    fn the_verdict_says_the_worst_first() {
        for (success, failed, interrupted, word) in [
            (true, 0, false, "PASSED: "),
            (false, 1, false, "FAILED: "),
            (false, 1, true, "FAILED: "),
            (false, 0, true, "INTERRUPTED: "),
            (false, 0, false, "NOTHING PASSED: "),
        ] {
            let summary = Summary { success, failed, interrupted, ..Default::default() };
            let text = verdict(&Report { summary, ..Default::default() });
            assert!(text.starts_with(word), "{text}");
            assert_eq!(text.ends_with("; stopped before its end"), interrupted, "{text}");
        }
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        let mut report = sample::report();
        report.results[0].result.test_name = "a\u{1b}[2Jb\nc\r".to_owned();
        let text = render(&report, None);
        assert!(text.contains("a?[2Jb?c?"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn an_empty_run_has_a_table_too() {
        assert!(render(&Report::default(), Some(80)).contains("0 of 0 cases passed"));
    }
}
