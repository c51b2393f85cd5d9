//! Owns the reading of what an endpoint for Prometheus sends.
//! Must not know which metrics there are.

use std::collections::BTreeMap;

/// One line of a scrape: the value of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name of the metric, with `_bucket`, `_sum` or `_count` of a histogram.
    pub name: String,
    /// The labels and their values, as they are sent: quotes, backslashes and line ends are escaped.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// The samples of a page in the text format.
///
/// # Panics
/// If a line is not a sample.
pub fn samples(page: &str) -> Vec<Sample> {
    page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(sample).collect()
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.strip_suffix("\"}").unwrap_or(labels);
    let pairs = labels.split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
        let (label, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        (label.to_owned(), value.to_owned())
    });
    let value = value.parse().unwrap_or_else(|_| panic!("no value: {line}"));
    Sample { name: name.to_owned(), labels: pairs.collect(), value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_read() {
        let page = "# HELP a Text {x=\"1\"} 2\n# TYPE a counter\na 1\n\nb_bucket{le=\"+Inf\",table=\"x y\"} 2.5\n";
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let expected = [
            Sample { name: "a".into(), labels: labels(&[]), value: 1.0 },
            Sample { name: "b_bucket".into(), labels: labels(&[("le", "+Inf"), ("table", "x y")]), value: 2.5 },
        ];
        assert_eq!(samples(page), expected);
    }
}
