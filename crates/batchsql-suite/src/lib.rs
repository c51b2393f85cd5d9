//! The BatchSQL integration suite: runs cases against real databases and reports what happened.
//!
//! This crate is not published. [`report`] turns the results of a run into files and a table.

pub mod report;
