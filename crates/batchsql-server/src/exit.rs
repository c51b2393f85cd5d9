//! Owns the exit codes of the program. Scripts rely on them: they are in `--help` and in the guides.
//! Must not know commands.

use std::process::ExitCode;

use crate::table::target;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything is as it should be.
    Done,
    /// A check has found something, rows were not written, or a log is damaged.
    Failed,
    /// The command line or the configuration is wrong. Nothing was done.
    Mistake,
    /// A database, a file, a folder, a port or standard output could not be used.
    Unavailable,
    /// Rows wait in the durable intake for the next start, or may wait there.
    Waiting,
}

impl Exit {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Mistake => 2,
            Self::Unavailable => 3,
            Self::Waiting => 4,
        }
    }

    /// Of two reasons to end, the more severe one: its number is higher.
    pub(crate) fn or_worse(self, other: Self) -> Self {
        if other.number() > self.number() { other } else { self }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
    pub(crate) remedy: Remedy,
}

/// What has to be done before it can work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The exit code says it.
    OfExit,
    /// The table or its rights have to be changed, and nothing else.
    Table,
    /// A file beside the loaded one cannot be written, which says nothing of others.
    FileBeside,
    /// Another process does it now.
    OtherProcess,
    /// None: it was stopped.
    LaterRun,
}

impl Failure {
    pub(crate) fn mistake(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::Mistake, text)
    }

    pub(crate) fn unavailable(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::Unavailable, text)
    }

    pub(crate) fn waiting(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::Waiting, text)
    }

    pub(crate) fn failed(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::Failed, text)
    }

    /// The table with this name cannot be used.
    pub(crate) fn of_target(table: &str, error: &target::NotOpened) -> Self {
        let text = target::problem(table, error);
        if error.is_unavailable { Self::unavailable(text) } else { Self::failed(text) }
    }

    /// The table cannot be written as it is.
    pub(crate) fn of_table(text: impl std::fmt::Display) -> Self {
        Self { remedy: Remedy::Table, ..Self::failed(text) }
    }

    /// A file beside the loaded one cannot be written.
    pub(crate) fn of_file_beside(text: impl std::fmt::Display) -> Self {
        Self { remedy: Remedy::FileBeside, ..Self::unavailable(text) }
    }

    /// Another process does it now.
    pub(crate) fn of_other_process(text: impl std::fmt::Display) -> Self {
        Self { remedy: Remedy::OtherProcess, ..Self::unavailable(text) }
    }

    /// It was to end, and a later run goes on.
    pub(crate) fn of_stop(text: impl std::fmt::Display) -> Self {
        Self { remedy: Remedy::LaterRun, ..Self::unavailable(text) }
    }

    fn new(exit: Exit, text: impl std::fmt::Display) -> Self {
        Self { exit, text: text.to_string(), remedy: Remedy::OfExit }
    }
}

impl From<crate::database::NotOpened> for Failure {
    fn from(error: crate::database::NotOpened) -> Self {
        if error.is_mistake() {
            Self::mistake(format!("[database] {error}"))
        } else {
            Self::unavailable(format!("the database cannot be opened: {error}"))
        }
    }
}

impl From<crate::config::problem::Problems> for Failure {
    fn from(problems: crate::config::problem::Problems) -> Self {
        Self::mistake(problems)
    }
}

#[cfg(test)]
mod tests {
    use batchsql::{ErrorClass, SinkError};

    use super::*;

    #[test]
    fn a_database_that_does_not_answer_is_not_the_fault_of_a_table() {
        let exit = |class| Failure::of_target("orders", &SinkError::new(class, "why").into()).exit;
        assert_eq!(exit(ErrorClass::Transient), Exit::Unavailable);
        assert_eq!(exit(ErrorClass::Schema), Exit::Failed);
        assert_eq!(Failure::of_target("orders", &String::new().into()).exit, Exit::Failed);
    }
}
