//! Programs that only a few tests and checks need; without them these are skipped, except in CI.
//! Must not know those tests and checks.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::servers::{self, Refusal, is_ci};

/// A program that only a few tests and checks need.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// The variable with which its tests require it.
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
    // It is large, and checks files that rarely change.
    only_in_ci: true,
    // Not only the plugin, which servers need: any compose can read the file. The standalone program may be older
    // than `up --wait`, and its package contains no engine.
    is_present: || servers::program(&["docker-compose"]).is_some() || has_compose_plugin(),
};

pub(crate) const CHROMEDRIVER: Tool = Tool {
    name: "chromedriver",
    variable: "BATCHSQL_REQUIRE_CHROMEDRIVER",
    // The package depends on the browser of the same version.
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

pub(crate) const CURL: Tool = Tool {
    name: "curl",
    variable: "BATCHSQL_REQUIRE_CURL",
    package: "curl",
    otherwise: "put curl into PATH",
    only_in_ci: false,
    is_present: || servers::program(&["curl"]).is_some(),
};

pub(crate) const SQLITE3: Tool = Tool {
    name: "sqlite3",
    variable: "BATCHSQL_REQUIRE_SQLITE3",
    package: "sqlite3",
    otherwise: "put the shell of SQLite, sqlite3, into PATH",
    only_in_ci: false,
    is_present: || servers::program(&["sqlite3"]).is_some(),
};

/// The tools that tests need.
pub(crate) const ALL: [Tool; 6] = [PROMTOOL, COMPOSE, CHROMEDRIVER, ALERTMANAGER, CURL, SQLITE3];

/// Whether the tests of a tool can run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    Present,
    /// Missing, and its tests may be skipped: what to do.
    Optional(String),
    /// Missing in CI, where no test may be skipped: what to do.
    Required(String),
}

impl Tool {
    /// The package to install, if it is missing.
    pub(crate) fn missing_package(&self) -> Option<&'static str> {
        let wanted = !self.only_in_ci || is_ci();
        (wanted && !(self.is_present)()).then_some(self.package)
    }

    /// The expectation after the installation, or after its refusal.
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

/// Whether the PostgreSQL of this machine has the extension pgvector. Few distributions have a package of it, so it is never
/// installed, and also CI may lack it.
pub(crate) fn has_pgvector() -> bool {
    let asked = Command::new("pg_config").arg("--sharedir").stderr(Stdio::null()).output();
    let shared = asked.ok().map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    // Where Debian has them, each version in a folder of its own.
    let versions = fs::read_dir("/usr/share/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    versions.chain(shared).any(|folder| folder.join("extension/vector.control").exists())
}

/// What to say of the tests of pgvector, if they test nothing. A server that was named may have it.
pub(crate) fn without_pgvector(server_is_named: bool, is_present: bool) -> Option<&'static str> {
    let advice = "PostgreSQL has no extension `vector` here; the tests of it test nothing; install pgvector, or name a server \
                  that has it with POSTGRES_DSN";
    (!server_is_named && !is_present).then_some(advice)
}

/// Whether `docker compose` is available; it needs no engine.
pub(crate) fn has_compose_plugin() -> bool {
    let mut version = Command::new("docker");
    version.args(["compose", "version"]).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_pgvector_that_test_nothing_are_named() {
        assert!(without_pgvector(false, false).is_some_and(|advice| advice.contains("POSTGRES_DSN")));
        assert_eq!(
            [(true, false), (false, true), (true, true)].map(|(named, has)| without_pgvector(named, has)),
            [None; 3]
        );
    }

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
        // There was no attempt to install it.
        assert!(!advice(compose, None).contains("failed"));
    }
}
