//! Owns what a check has found.
//! Must not know how it is found or shown.

use serde::Serialize;

use crate::config::problem::Problems;
use crate::exit::Exit;

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
    /// Whether it could not be asked, in contrast to a bad answer.
    #[serde(skip)]
    pub(crate) is_unavailable: bool,
}

impl Finding {
    pub(crate) fn new(
        check: &'static str,
        subject: impl Into<String>,
        status: Status,
        detail: impl Into<String>,
    ) -> Self {
        Self { check, subject: subject.into(), status, detail: detail.into(), is_unavailable: false }
    }

    pub(crate) fn unavailable(check: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { is_unavailable: true, ..Self::new(check, subject, Status::Failed, detail) }
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

/// The exit code of what was found.
pub(crate) fn exit(findings: &[Finding]) -> Exit {
    let failed = |finding: &&Finding| finding.status == Status::Failed;
    if findings.iter().filter(failed).any(|finding| finding.is_unavailable) {
        Exit::Unavailable
    } else if findings.iter().any(|finding| failed(&finding)) {
        Exit::Failed
    } else {
        Exit::Done
    }
}
