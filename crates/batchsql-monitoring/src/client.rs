//! Owns the client of a Prometheus: two requests of its HTTP API, and errors that say what to do.
//! Must not know dashboards.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use ureq::Agent;

/// Longer than any query of a dashboard may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why a request to Prometheus failed.
#[derive(Debug)]
pub struct PrometheusError {
    message: String,
    is_query: bool,
}

impl PrometheusError {
    /// Whether Prometheus responded and rejected the query.
    pub fn is_query(&self) -> bool {
        self.is_query
    }
}

impl fmt::Display for PrometheusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PrometheusError {}

/// A series of a response: its labels, and how many of its samples are numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: Value,
    pub(crate) numbers: usize,
}

/// Start and end of a query in seconds since 1970, and the step in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) step: f64,
}

pub(crate) struct Client {
    agent: Agent,
    url: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Value,
    #[serde(default)]
    error: Option<String>,
}

impl Client {
    /// A client for a Prometheus at this address, for example `http://127.0.0.1:9092`; it uses no proxy.
    pub(crate) fn new(url: &str) -> Self {
        let config = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).proxy(None);
        Self { agent: config.build().into(), url: url.trim_end_matches('/').to_owned() }
    }

    /// One current value per series, or many over a range.
    pub(crate) fn query(&self, query: &str, range: Option<Range>) -> Result<Vec<Series>, PrometheusError> {
        let data = match range {
            None => self.get("query", &[("query", query.to_owned())])?,
            Some(Range { start, end, step }) => {
                let times =
                    [("start", start), ("end", end), ("step", step)].map(|(name, at)| (name, format!("{at:.3}")));
                self.get("query_range", &[&[("query", query.to_owned())], &times[..]].concat())?
            }
        };
        if data["resultType"] == "scalar" {
            return Ok(vec![Series { labels: Value::Null, numbers: usize::from(is_number(&data["result"])) }]);
        }
        let result = data["result"].as_array().map(Vec::as_slice).unwrap_or_default();
        let numbers = |series: &Value| match series["values"].as_array() {
            Some(values) => values.iter().filter(|value| is_number(value)).count(),
            None => usize::from(is_number(&series["value"])),
        };
        Ok(result.iter().map(|series| Series { labels: series["metric"].clone(), numbers: numbers(series) }).collect())
    }

    fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<Value, PrometheusError> {
        let refused = |is_query, message: String| PrometheusError { message, is_query };
        let url = &self.url;
        let unreachable = |error: ureq::Error| {
            refused(
                false,
                format!("no Prometheus answers at {url}: {error}; start one, or pass its address with --prometheus"),
            )
        };
        let request = self.agent.get(format!("{url}/api/v1/{path}"));
        let request = parameters.iter().fold(request, |request, (name, value)| request.query(name, value));
        let mut response = request.call().map_err(unreachable)?;
        let status = response.status();
        let broken = |error| refused(false, format!("the response of {url} is incomplete: {error}"));
        let text = response.body_mut().read_to_string().map_err(broken)?;
        match serde_json::from_str::<Answer>(&text) {
            Ok(Answer { data, error: None }) if status.is_success() => Ok(data),
            Ok(Answer { error: Some(error), .. }) => {
                Err(refused(true, format!("Prometheus rejects the query: {error}")))
            }
            _ => Err(refused(
                false,
                format!("{url} responds with {status} and is not a Prometheus; pass the address of its web page"),
            )),
        }
    }
}

/// A sample is a time and a text.
fn is_number(sample: &Value) -> bool {
    sample[1].as_str().is_some_and(|text| text != "NaN")
}
