//! Questions by HTTP to servers of this machine: short, bounded, and never by way of a proxy.
//! Must not know what the answers mean.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// No answer of a server of this machine is longer.
const LONGEST: u64 = 64 << 20;

/// An answer: the status, and the body as text.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The body, unless the status tells of an error.
    pub(crate) fn json(self) -> anyhow::Result<Value> {
        anyhow::ensure!(self.status < 400, "it answered {} {}", self.status, excerpt(&self.body));
        serde_json::from_str(&self.body).context("its answer is not JSON")
    }
}

/// Asks for a page, and waits for all of it for at most `limit`. Errors of the server are answers.
pub(crate) fn get(url: &str, limit: Duration) -> anyhow::Result<Answer> {
    let answer = agent(limit).get(url).call().with_context(|| format!("cannot ask {url}"))?;
    read(url, answer)
}

/// Sends JSON with the headers that are given.
pub(crate) fn post(url: &str, headers: &[(&str, &str)], body: &Value, limit: Duration) -> anyhow::Result<Answer> {
    let mut request = agent(limit).post(url).header("Content-Type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send(body.to_string()).with_context(|| format!("cannot ask {url}"))?;
    read(url, answer)
}

fn agent(limit: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // A variable like `http_proxy` is about other machines.
        .proxy(None);
    config.build().new_agent()
}

fn read(url: &str, mut answer: ureq::http::Response<ureq::Body>) -> anyhow::Result<Answer> {
    let body = answer.body_mut().with_config().limit(LONGEST).lossy_utf8(true).read_to_string();
    Ok(Answer {
        status: answer.status().as_u16(),
        body: body.with_context(|| format!("cannot read the answer of {url}"))?,
    })
}

/// The beginning of a text, for a message.
fn excerpt(text: &str) -> String {
    text.trim().chars().take(300).collect()
}
