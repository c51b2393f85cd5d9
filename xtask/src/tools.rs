//! Programs that only a few tests and checks need, to read files with: these are skipped without them, except in CI.
//! Must not know those tests and checks.

use std::process::{Command, Stdio};

use crate::servers::{self, Refusal, is_ci};

/// A program that only a few tests and checks need.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// The variable that makes its tests insist on it.
    pub(crate) variable: &'static str,
    /// The package of Debian and Ubuntu.
    package: &'static str,
    otherwise: &'static str,
    only_in_ci: bool,
    is_present: fn() -> bool,
}

pub(crate) const PROMTOOL: Tool = Tool {
    name: "promtool",
    variable: "BATCHSQL_REQUIRE_PROMTOOL",
    package: "prometheus",
    otherwise: "put promtool of a Prometheus release into PATH",
    only_in_ci: false,
    is_present: || servers::program(&["promtool"]).is_some(),
};

pub(crate) const AMTOOL: Tool = Tool {
    name: "amtool",
    variable: "BATCHSQL_REQUIRE_AMTOOL",
    package: "prometheus-alertmanager",
    otherwise: "put amtool of an Alertmanager release into PATH",
    only_in_ci: false,
    is_present: || servers::program(&["amtool"]).is_some(),
};

pub(crate) const COMPOSE: Tool = Tool {
    name: "docker compose",
    variable: "BATCHSQL_REQUIRE_COMPOSE",
    package: "docker-compose",
    otherwise: "install Docker with its compose plugin",
    // It is large, and checks files that seldom change.
    only_in_ci: true,
    // Not only the plugin, which servers need: any compose can read the file, while the program of that name may
    // be older than `up --wait`, and the package that has it does not bring an engine.
    is_present: || servers::program(&["docker-compose"]).is_some() || has_compose_plugin(),
};

pub(crate) const CHROMEDRIVER: Tool = Tool {
    name: "chromedriver",
    variable: "BATCHSQL_REQUIRE_CHROMEDRIVER",
    // It brings the browser of the same version.
    package: "chromium-driver",
    otherwise: "put Chromium or Chrome and the chromedriver of the same version into PATH",
    only_in_ci: false,
    is_present: || servers::program(&["chromedriver"]).is_some(),
};

pub(crate) const ALERTMANAGER: Tool = Tool {
    name: "alertmanager",
    variable: "BATCHSQL_REQUIRE_ALERTMANAGER",
    package: "prometheus-alertmanager",
    otherwise: "put alertmanager of an Alertmanager release into PATH",
    only_in_ci: false,
    is_present: || servers::program(&["prometheus-alertmanager", "alertmanager"]).is_some(),
};

/// Those that tests need.
pub(crate) const ALL: [Tool; 4] = [PROMTOOL, COMPOSE, CHROMEDRIVER, ALERTMANAGER];

/// What the tests of a tool can expect.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    Present,
    /// Missing, and the tests that need it may be skipped: what to do about it.
    Optional(String),
    /// Missing, and this is CI, where no test may be skipped: what to do about it.
    Required(String),
}

impl Tool {
    /// The package to install, when it is missing.
    pub(crate) fn missing_package(&self) -> Option<&'static str> {
        let wanted = !self.only_in_ci || is_ci();
        (wanted && !(self.is_present)()).then_some(self.package)
    }

    /// What to expect, after it was installed unless that was refused.
    pub(crate) fn expectation(&self, refusal: Option<Refusal>) -> Expectation {
        if (self.is_present)() {
            return Expectation::Present;
        }
        self.missing(refusal, is_ci())
    }

    fn missing(&self, refusal: Option<Refusal>, ci: bool) -> Expectation {
        let Self { name, package, otherwise, .. } = self;
        let why = match refusal {
            Some(refusal) => format!(", and {}", refusal.reason()),
            None if ci || !self.only_in_ci => ", and installing it failed, see above".to_owned(),
            None => String::new(),
        };
        let advice = format!("install the package `{package}` (Debian, Ubuntu), or {otherwise}");
        if ci {
            Expectation::Required(format!("{name} is missing{why}; {advice}"))
        } else {
            Expectation::Optional(format!("{name} is missing{why}; what needs it is skipped; {advice}"))
        }
    }
}

/// Whether `docker compose` answers; it needs no engine.
pub(crate) fn has_compose_plugin() -> bool {
    let mut version = Command::new("docker");
    version.args(["compose", "version"]).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ci_insists() {
        for tool in &ALL {
            for refusal in [None, Some(Refusal::Forbidden)] {
                assert!(matches!(tool.missing(refusal, false), Expectation::Optional(_)));
                assert!(matches!(tool.missing(refusal, true), Expectation::Required(_)));
            }
        }
    }

    #[test]
    fn the_advice_says_what_was_tried() {
        let advice = |tool: &Tool, refusal| match tool.missing(refusal, false) {
            Expectation::Optional(advice) => advice,
            other => panic!("{other:?}"),
        };
        let [promtool, compose, ..] = &ALL;
        assert!(advice(promtool, None).contains("installing it failed"));
        assert!(advice(promtool, Some(Refusal::NoRights)).contains(Refusal::NoRights.reason()));
        // Nobody tried to.
        assert!(!advice(compose, None).contains("failed"));
    }
}
