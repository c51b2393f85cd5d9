//! Owns the queries of a dashboard to a Prometheus: every query, with its variables, and its result.
//! Must not know HTTP, or the rules for dashboards.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::client::{Client, Range};
use crate::dashboard::Dashboard;
use crate::variables::substitute;

/// Interval between two attempts while something is missing.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The choice of variables on the dashboard. Job and instance stay at All.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Regular expression for `database`; All by default.
    pub database: String,
    /// Regular expression for `test_case`; All by default, which includes series without one.
    pub test_case: String,
    /// The time range of the dashboard, up to now; default 5 minutes.
    pub window: Duration,
    /// The value of `$__rate_interval`; default 20 s, as in Grafana for a scrape interval of 5 s.
    pub rate_interval: Duration,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            database: ".+".to_owned(),
            test_case: ".*".to_owned(),
            window: Duration::from_secs(300),
            rate_interval: Duration::from_secs(20),
        }
    }
}

/// The result of one query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The panel, variable or annotation.
    pub place: String,
    /// The query's letter in its panel.
    pub reference: String,
    /// Number of series; for a variable, of values.
    pub series: usize,
    /// Number of series with at least one number.
    pub with_numbers: usize,
    /// Why an empty result is not a mistake, for example because no alert fires.
    pub excuse: Option<&'static str>,
}

impl Answer {
    /// Whether the panel would show nothing although it should.
    pub fn is_missing(&self) -> bool {
        // Grafana does not draw a series that has only NaN.
        self.with_numbers == 0 && self.excuse.is_none()
    }
}

/// The results of every query of a dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Panels {
    /// In the order of the dashboard: panels, annotations, variables.
    pub answers: Vec<Answer>,
}

impl Panels {
    /// Queries without a result.
    pub fn missing(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| answer.is_missing())
    }
}

impl fmt::Display for Panels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.answers.iter().map(|answer| answer.place.chars().count()).max().unwrap_or_default();
        writeln!(f, "{:width$}  query  series", "where")?;
        for Answer { place, reference, series, with_numbers, excuse } in &self.answers {
            let note = match (series, with_numbers, excuse) {
                (0, _, Some(excuse)) => format!("  ({excuse})"),
                (0, _, None) => "  MISSING".to_owned(),
                (_, 0, _) => "  MISSING: no number in the result".to_owned(),
                _ => String::new(),
            };
            writeln!(f, "{place:width$}  {reference:5}  {series:6}{note}")?;
        }
        Ok(())
    }
}

/// A query of the dashboard.
struct Question {
    place: String,
    reference: String,
    query: String,
    /// At the current time instead of over the window.
    instant: bool,
    /// For a variable: the label whose values it lists.
    label: Option<String>,
    excuse: Option<&'static str>,
}

/// Metrics that exist only if they have a source, and the reason if they do not exist at all.
const CONDITIONAL: [(&str, &str); 6] = [
    ("batchsql_pool_connections", "no sink has a pool"),
    ("batchsql_durable_", "no pipeline has a durable intake"),
    ("batchsql_feed_", "no pipeline is fed from a source"),
    ("batchsql_gc_count", "no allocator reports its sweeps"),
    ("batchsql_memory_usage_", "no memory was recorded"),
    ("batchsql_test_", "no test was recorded"),
];

/// Sends every query of a dashboard (its JSON) to the Prometheus at `url`, until each has a result or `wait` is over.
///
/// # Errors
/// It is not a dashboard, or Prometheus does not respond or rejects a query. The result contains queries without data.
pub fn panels(url: &str, dashboard: &str, choice: &Choice, wait: Duration) -> Result<Panels> {
    let dashboard = Dashboard::parse(dashboard).context("it is not a dashboard")?;
    let questions = questions(&dashboard, choice)?;
    anyhow::ensure!(!questions.is_empty(), "it is not a dashboard: it has no query");
    let client = Client::new(url);
    let begin = Instant::now();
    loop {
        let mut answers = Vec::new();
        for question in &questions {
            let answer =
                ask(&client, question, choice).with_context(|| format!("{}: {}", question.place, question.query))?;
            answers.push(answer);
        }
        let panels = Panels { answers };
        if panels.missing().next().is_none() || begin.elapsed() >= wait {
            return Ok(panels);
        }
        sleep(POLL_INTERVAL.min(wait.saturating_sub(begin.elapsed())));
    }
}

fn ask(client: &Client, question: &Question, choice: &Choice) -> Result<Answer> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    // As many points as a small panel shows.
    let step = (choice.window.as_secs_f64() / 300.0).max(1.0);
    let range = Range { start: now - choice.window.as_secs_f64(), end: now, step };
    let found = client.query(&question.query, (!question.instant).then_some(range))?;
    let (series, with_numbers) = match &question.label {
        None => (found.len(), found.iter().filter(|series| series.numbers > 0).count()),
        Some(label) => {
            let values = found.iter().filter(|series| series.labels[label].as_str().is_some()).count();
            (values, values)
        }
    };
    let (place, reference) = (question.place.clone(), question.reference.clone());
    let mut excuse = question.excuse;
    if series == 0 && excuse.is_none() {
        let conditional = CONDITIONAL.iter().find(|(name, _)| question.query.contains(name));
        if let Some((name, reason)) = conditional {
            // Only if no series of this name exists; otherwise the panel must show it.
            let window = choice.window.as_secs().max(1);
            let anywhere = format!("count(last_over_time({{__name__=~\"{name}.*\"}}[{window}s]))");
            excuse = client.query(&anywhere, None)?.is_empty().then_some(*reason);
        }
    }
    Ok(Answer { place, reference, series, with_numbers, excuse })
}

fn questions(dashboard: &Dashboard, choice: &Choice) -> Result<Vec<Question>> {
    let seconds = |time: Duration| format!("{}s", time.as_secs().max(1));
    let value = |name: &str| match name {
        "job" | "instance" => Some(".+".to_owned()),
        "database" => Some(choice.database.clone()),
        "test_case" => Some(choice.test_case.clone()),
        "__rate_interval" => Some(seconds(choice.rate_interval)),
        "__range" => Some(seconds(choice.window)),
        "__interval" => Some("5s".to_owned()),
        _ => None,
    };
    let fill = |place: &str, text: &str| {
        substitute(text, value).map_err(|name| anyhow::anyhow!("{place}: there is no variable ${name}"))
    };
    let mut questions = Vec::new();
    for panel in dashboard.all_panels().filter(|panel| !panel.is_row()) {
        for target in &panel.targets {
            questions.push(Question {
                place: panel.title.clone(),
                reference: target.ref_id.clone(),
                query: fill(&panel.title, &target.expr)?,
                instant: target.instant,
                label: None,
                excuse: None,
            });
        }
    }
    for annotation in dashboard.annotations.list.iter().filter(|annotation| !annotation.expr.is_empty()) {
        let place = format!("annotation {}", annotation.name);
        questions.push(Question {
            query: fill(&place, &annotation.expr)?,
            reference: String::new(),
            place,
            instant: false,
            label: None,
            excuse: annotation.expr.starts_with("ALERTS").then_some("no alert fires"),
        });
    }
    for variable in &dashboard.templating.list {
        if let Some((selector, label)) = variable.label_values() {
            let place = format!("variable {}", variable.name);
            questions.push(Question {
                query: format!(
                    "count by ({label}) (last_over_time({}[{}]))",
                    fill(&place, &selector)?,
                    seconds(choice.window)
                ),
                reference: String::new(),
                place,
                instant: true,
                label: Some(label),
                excuse: None,
            });
        }
    }
    Ok(questions)
}
