//! Questions by HTTP to servers of this machine: short, bounded, and never by way of a proxy.
//! Must not know what the answers mean.

use std::time::Duration;

use anyhow::Context;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
}

/// Asks for a page, and waits for all of it for at most `limit`. Errors of the server are answers.
pub(crate) fn get(url: &str, limit: Duration) -> anyhow::Result<Answer> {
    let answer = agent(limit).get(url).call().with_context(|| format!("cannot ask {url}"))?;
    Ok(Answer { status: answer.status().as_u16() })
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
