//! The sink that a test controls, and the record of what it applied.
//!
//! `sink` is the handle, `state` what its clones share; `step` and `script` say what it does, `driver` does it when the
//! pipeline calls, with `apply` for rows and `positions` for those of partitions.

mod apply;
mod driver;
mod positions;
mod script;
mod sink;
mod state;
mod step;

pub use sink::ScriptedSink;
pub use step::{Sabotage, Step};
