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

/// The sum of the series of a metric that have all of these labels, escaped as they are sent. `None` if there is none.
///
/// # Panics
/// If a line of the page is not a sample.
pub fn sum(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let has = |sample: &Sample, (label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|of| of == value);
    let is_of = |sample: &Sample| sample.name == name && labels.iter().all(|label| has(sample, label));
    samples(page).into_iter().filter(is_of).map(|sample| sample.value).reduce(|sum, value| sum + value)
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

    #[test]
    fn series_with_all_labels_are_added() {
        let page = "a{t=\"x\",o=\"w\"} 1\na{t=\"y\",o=\"w\"} 2\na{t=\"y\",o=\"r\"} 4\nab{t=\"y\"} 8\n";
        assert_eq!(sum(page, "a", &[]), Some(7.0));
        assert_eq!(sum(page, "a", &[("o", "w")]), Some(3.0));
        assert_eq!(sum(page, "a", &[("o", "w"), ("t", "y")]), Some(2.0));
        assert_eq!((sum(page, "a", &[("o", "")]), sum(page, "c", &[])), (None, None));
    }
}
