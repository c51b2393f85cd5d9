//! HTTP requests to servers of this machine: with limits, and without a proxy.
//! Must not know the meaning of responses.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// Maximum size of a response in bytes.
const LONGEST: u64 = 64 << 20;

/// A response: the status, and the body as text.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The body, unless the status is an error.
    pub(crate) fn json(self) -> anyhow::Result<Value> {
        anyhow::ensure!(self.status < 400, "it responded with {} {}", self.status, excerpt(&self.body));
        serde_json::from_str(&self.body).context("its response is not JSON")
    }
}

/// Gets a page within `limit`. An error status is a response and not an `Err`.
pub(crate) fn get(url: &str, limit: Duration) -> anyhow::Result<Answer> {
    let answer = agent(limit).get(url).call().with_context(|| format!("cannot connect to {url}"))?;
    read(url, answer)
}

/// Sends JSON with these headers.
pub(crate) fn post(url: &str, headers: &[(&str, &str)], body: &Value, limit: Duration) -> anyhow::Result<Answer> {
    let mut request = agent(limit).post(url).header("Content-Type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send(body.to_string()).with_context(|| format!("cannot connect to {url}"))?;
    read(url, answer)
}

fn agent(limit: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Variables like `http_proxy` are for other machines.
        .proxy(None);
    config.build().new_agent()
}

fn read(url: &str, mut answer: ureq::http::Response<ureq::Body>) -> anyhow::Result<Answer> {
    let body = answer.body_mut().with_config().limit(LONGEST).lossy_utf8(true).read_to_string();
    Ok(Answer {
        status: answer.status().as_u16(),
        body: body.with_context(|| format!("cannot read the response of {url}"))?,
    })
}

/// The beginning of a text, for a message.
fn excerpt(text: &str) -> String {
    text.trim().chars().take(300).collect()
}
