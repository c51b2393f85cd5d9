//! Feeds with a source and a sink that the tests control.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod endings;
mod exactly;
mod holes;
mod source;
