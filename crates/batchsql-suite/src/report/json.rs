//! `report.json`: the data model, pretty printed, and its parsing.
//! Must not know the page or the other outputs.

use std::path::Path;

use anyhow::Context as _;

use super::model::Report;

/// The report as pretty JSON, with a newline at its end.
///
/// # Errors
/// None in practice: every key is a string. A figure that is not finite becomes `null`.
pub fn to_string(report: &Report) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(report).context("cannot write the report as JSON")?;
    text.push('\n');
    Ok(text)
}

/// Parses the output of [`to_string`]; a figure with more than 15 digits may differ in its last digit.
///
/// # Errors
/// The text is not JSON or not a report; the message says where.
pub fn from_str(text: &str) -> anyhow::Result<Report> {
    serde_json::from_str(text).context("not a BatchSQL report")
}

/// Reads a `report.json`.
///
/// # Errors
/// The file cannot be read or is not a report; the message names the file.
pub fn read(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    from_str(&text).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_report_survives_the_round_trip() {
        for report in [sample::report(), sample::edges(), Report::default()] {
            // Not assert_eq, because a report is too long to print.
            assert!(from_str(&to_string(&report).unwrap()).unwrap() == report);
        }
    }

    #[test]
    fn required_fields_stand_beside_the_others() {
        let text = to_string(&sample::report()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let case = &value["results"][0];
        for field in ["database", "test_name", "duration", "rps_note", "errors", "series", "batch_latency", "skipped"] {
            assert!(case.get(field).is_some(), "{field} is missing");
        }
        assert!(case.get("result").is_none());
    }

    #[test]
    fn a_figure_that_is_not_finite_can_be_read_back() {
        let mut report = sample::report();
        report.results[0].series[0].records_per_second = f64::NAN;
        let back = from_str(&to_string(&report).unwrap()).unwrap();
        assert!(back.results[0].series[0].records_per_second.is_nan());
        assert!(back.results[1] == report.results[1]);
    }

    #[test]
    fn a_bad_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("report.json"));
        std::fs::write(&path, "{}").unwrap();
        let message = format!("{:#}", read(&path).unwrap_err());
        assert!(message.contains("report.json") && message.contains("missing field"), "{message}");
    }
}
