//! Runs steps in sequence, even after failures, and prints a summary.
//! Must not know what a step does.

use std::{
    fmt, io,
    process::{Command, ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use crate::{
    interrupt, listen,
    timings::{self, Timings},
};

/// The steps of one verb so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    finished: Vec<Finished>,
    telling: Telling,
}

/// The amount of output.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Telling {
    /// A heading for each step, because programs print between them, and a summary at the end.
    #[default]
    Summary,
    /// One line for each.
    Line,
}

#[derive(Debug)]
struct Finished {
    title: String,
    end: End,
    timings: Option<Timings>,
}

#[derive(Debug)]
enum End {
    Passed(Duration),
    Failed(Duration),
    /// A check without a program: its result.
    Held(String),
    /// Did not run, and the verb fails: the reason.
    Impossible(String),
    /// Did not run, and that is allowed: the reason.
    Skipped(String),
}

impl Steps {
    /// Steps without programs: one line for each.
    pub(crate) fn brief() -> Self {
        Self { finished: Vec::new(), telling: Telling::Line }
    }

    /// Runs a program, unless a termination signal was received.
    pub(crate) fn run(&mut self, title: impl Into<String>, command: Command) {
        self.run_with(title.into(), command, |command, _| (interrupt::status(command), None));
    }

    /// Runs a `cargo test` and records its timings.
    pub(crate) fn run_tests(&mut self, title: impl Into<String>, command: Command) {
        self.run_with(title.into(), command, |command, start| {
            let (status, timings) = listen::status(command, start);
            (status, Some(timings))
        });
    }

    fn run_with(
        &mut self,
        title: String,
        mut command: Command,
        status: impl FnOnce(&mut Command, Instant) -> (io::Result<ExitStatus>, Option<Timings>),
    ) {
        if interrupt::caught() {
            let end = End::Impossible("interrupted".into());
            return self.finished.push(Finished { title, end, timings: None });
        }
        heading(&title);
        let start = Instant::now();
        let (status, timings) = status(&mut command, start);
        let took = start.elapsed();
        let end = match status {
            Ok(status) if status.success() => End::Passed(took),
            Ok(_) => End::Failed(took),
            Err(error) => End::Impossible(format!("cannot start {}: {error}", command.get_program().display())),
        };
        self.finished.push(Finished { title, end, timings });
    }

    pub(crate) fn holds(&mut self, title: impl Into<String>, how: impl Into<String>) {
        self.without_running(title.into(), End::Held(how.into()));
    }

    pub(crate) fn skip(&mut self, title: impl Into<String>, reason: impl Into<String>) {
        self.without_running(title.into(), End::Skipped(reason.into()));
    }

    pub(crate) fn impossible(&mut self, title: impl Into<String>, reason: impl Into<String>) {
        self.without_running(title.into(), End::Impossible(reason.into()));
    }

    /// Prints one line per step and returns the exit code of the verb.
    pub(crate) fn finish(self) -> ExitCode {
        if self.telling == Telling::Summary {
            if self.finished.iter().any(|step| step.timings.is_some()) {
                heading("time");
                for line in self.times() {
                    say!("{line}");
                }
            }
            heading("summary");
            for step in &self.finished {
                say!("{step}");
            }
        }
        if self.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    /// The timings of all steps that ran.
    fn times(&self) -> Vec<String> {
        let steps = self.finished.iter().filter_map(|step| match step.end {
            End::Passed(took) | End::Failed(took) => Some((step.title.as_str(), took, step.timings.as_ref())),
            End::Held(_) | End::Impossible(_) | End::Skipped(_) => None,
        });
        timings::table(steps)
    }

    pub(crate) fn failed(&self) -> bool {
        self.finished.iter().any(|step| matches!(step.end, End::Failed(_) | End::Impossible(_)))
    }

    fn without_running(&mut self, title: String, end: End) {
        if self.telling == Telling::Summary {
            heading(&title);
        }
        let step = Finished { title, end, timings: None };
        say!("{step}");
        self.finished.push(step);
    }
}

pub(crate) fn heading(title: &str) {
    say!("==> {title}");
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = &self.title;
        match &self.end {
            End::Passed(took) => write!(f, "passed   {title} ({:.1} s)", took.as_secs_f64()),
            End::Failed(took) => write!(f, "FAILED   {title} ({:.1} s)", took.as_secs_f64()),
            End::Held(how) => write!(f, "passed   {title}: {how}"),
            End::Impossible(reason) => write!(f, "FAILED   {title}: {reason}"),
            End::Skipped(reason) => write!(f, "skipped  {title}: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ends: impl IntoIterator<Item = End>, failed: bool) {
        let finished = ends.into_iter().map(|end| Finished { title: "step".to_owned(), end, timings: None }).collect();
        let steps = Steps { finished, telling: Telling::Line };
        assert_eq!(steps.failed(), failed, "{steps:?}");
    }

    #[test]
    fn one_failed_step_fails_the_verb() {
        let second = Duration::from_secs(1);
        check([], false);
        check([End::Passed(second), End::Skipped("not installed".into())], false);
        check([End::Held("found".into())], false);
        check([End::Failed(second), End::Passed(second)], true);
        check([End::Impossible("not installed".into()), End::Passed(second)], true);
    }

    #[test]
    fn a_program_that_does_not_exist_is_a_failed_step() {
        let mut steps = Steps::default();
        steps.run("missing", Command::new("there-is-no-program-of-this-name"));
        assert!(steps.failed());
        assert!(steps.finished[0].to_string().starts_with("FAILED   missing: cannot start"));
    }
}
