//! The configuration: one TOML file, read and checked before anything is opened.
//!
//! `sections` has what a person writes, `variables` and `secret` put values from outside into it, `settings` is what remains
//! after every check. Each mistake is a `problem` with file, line and remedy; all mistakes of the checks are shown together.

pub(crate) mod access;
mod brackets;
pub(crate) mod checks;
mod letters_checks;
pub(crate) mod level;
mod mistakes;
mod nats_checks;
#[cfg(feature = "nats")]
pub(crate) mod nats_options;
pub(crate) mod nats_sections;
pub(crate) mod problem;
mod quantity;
pub(crate) mod read;
pub(crate) mod secret;
pub(crate) mod sections;
pub(crate) mod settings;
pub(crate) mod source_checks;
mod table_checks;
pub(crate) mod taken_files;
mod variables;

#[cfg(test)]
mod config_tests;
#[cfg(all(test, feature = "nats"))]
mod nats_tests;
