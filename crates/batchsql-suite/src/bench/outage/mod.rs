//! The database is unreachable for a long time, and then everything that waits in the log is written: how long it takes, and how much
//! memory.
//!
//! `measure` fills the log of a durable pipeline while the `target` is unreachable, makes it reachable, and counts the rows;
//! `results` shows what was found, and `scratch` removes the files, in whatever way the program ends.

mod measure;
mod results;
mod scratch;
mod target;

pub use measure::{OutagePlan, outage};
pub use results::Outage;
