//! Batches against a scripted sink: which types fit, which values are refused, and what becomes of the rows.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod submit;
mod support;
mod types;
