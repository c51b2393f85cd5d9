//! `cargo xtask lint`, step "imports": import cycles inside one crate.
//!
//! [`tokens`] and [`parse`] read one file, [`tree`] follows `mod` lines from the root of a target, [`resolve`] finds the
//! file that a path leads to, [`graph`] finds cycles. [`check`] does this for every crate of the workspace.

mod check;
mod graph;
mod parse;
mod resolve;
mod tokens;
mod tree;

pub(crate) use check::{Findings, workspace};
