//! Owns what a check has found.
//! Must not know how it is found or shown.

use serde::Serialize;

use crate::config::problem::Problems;
use crate::exit::Exit;
use crate::words;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Ok,
    Warning,
    Failed,
    /// It was not checked, because something before it failed or the check is offline.
    Skipped,
}

/// One line of a check.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// What was checked, such as `table`.
    pub(crate) check: &'static str,
    /// Which one.
    pub(crate) subject: String,
    pub(crate) status: Status,
    pub(crate) detail: String,
    /// The exit code of a check that finds only this.
    #[serde(skip)]
    exit: Exit,
}

impl Finding {
    pub(crate) fn new(
        check: &'static str,
        subject: impl Into<String>,
        status: Status,
        detail: impl Into<String>,
    ) -> Self {
        let exit = if status == Status::Failed { Exit::Failed } else { Exit::Done };
        let detail = words::of_program(&detail.into()).into_owned();
        Self { check, subject: subject.into(), status, detail, exit }
    }

    /// It could not be asked, in contrast to a bad answer.
    pub(crate) fn unavailable(check: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { exit: Exit::Unavailable, ..Self::new(check, subject, Status::Failed, detail) }
    }

    /// The configuration is wrong, which `run` says with the same exit code.
    pub(crate) fn mistake(check: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { exit: Exit::Mistake, ..Self::new(check, subject, Status::Failed, detail) }
    }
}

/// The mistakes of a configuration.
pub(crate) fn of_problems(problems: &Problems) -> Vec<Finding> {
    let finding = |problem: &crate::config::problem::Problem| {
        let text = problem.to_string();
        Finding::new("configuration", "", Status::Failed, text)
    };
    problems.0.iter().map(finding).collect()
}

/// The exit code of what was found. A mistake first: to try it again does not help.
pub(crate) fn exit(findings: &[Finding]) -> Exit {
    let exits = [Exit::Mistake, Exit::Unavailable, Exit::Failed];
    exits.into_iter().find(|exit| findings.iter().any(|finding| finding.exit == *exit)).unwrap_or(Exit::Done)
}
