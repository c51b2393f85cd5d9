//! The pipeline against scripted sinks, in paused time.

mod admission;
mod failure;
mod flush;
mod shutdown;
mod support;
