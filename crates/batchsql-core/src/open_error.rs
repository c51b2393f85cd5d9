//! Owns the error of a sink that cannot be opened, the same for every driver.
//! Must not know databases or the syntax of DSNs: drivers write the messages.

use std::error::Error as StdError;
use std::fmt;

type Source = Box<dyn StdError + Send + Sync>;

/// A sink cannot be opened: its options are invalid, or the database cannot be reached or refuses the connection. The
/// message says what to do, and never shows a password. `Debug` shows the message with the causes that it does not contain,
/// because a `main` that returns the error prints that.
pub struct OpenError {
    problem: String,
    is_invalid_options: bool,
    source: Option<Source>,
}

impl OpenError {
    /// The database cannot be opened with valid options. For drivers: `problem` names the server, what failed and what
    /// to do, without a password.
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), is_invalid_options: false, source: None }
    }

    /// The DSN or the options are invalid. For drivers: `problem` says which part, and what is valid, without values
    /// that may be a password.
    pub fn invalid_options(problem: impl Into<String>) -> Self {
        Self { is_invalid_options: true, ..Self::new(problem) }
    }

    /// Adds the cause. Its text must not show a password.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether the DSN or the options are invalid, so that another attempt fails in the same way.
    pub fn is_invalid_options(&self) -> bool {
        self.is_invalid_options
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl fmt::Debug for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !self.problem.contains(&text) {
                write!(f, ": {text}")?;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for OpenError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_the_message_with_its_causes() {
        let cause = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = OpenError::new("cannot connect to 127.0.0.1:1").caused_by(cause());
        assert_eq!(error.to_string(), "cannot connect to 127.0.0.1:1");
        assert_eq!(format!("{error:?}"), "cannot connect to 127.0.0.1:1: connection refused");
        let with_cause =
            OpenError::new("cannot connect to 127.0.0.1:1: connection refused; start it").caused_by(cause());
        assert_eq!(format!("{with_cause:?}"), with_cause.to_string());
        assert!(!error.is_invalid_options() && error.source().is_some());
        assert!(OpenError::invalid_options("no host").is_invalid_options());
    }
}
