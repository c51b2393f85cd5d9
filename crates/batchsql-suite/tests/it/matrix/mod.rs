//! The behaviour of every database for every rule and every value: BatchSQL against models, through the suite's
//! interface of databases.

mod canary;
mod clock;
mod conflicts;
mod guilt;
mod interleaved;
mod rules;
mod rules_model;
mod runs;
pub(crate) mod servers;
mod setup;
mod types;

pub(crate) use setup::{Setup, with_setup};
