//! The pipeline against scripted sinks, in paused time.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod admission;
mod failure;
mod features;
mod flush;
mod model;
mod shutdown;
mod support;
