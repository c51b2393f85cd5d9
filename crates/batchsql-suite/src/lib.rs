//! The BatchSQL integration suite: runs cases against real databases, compares every row, serves live
//! metrics meanwhile, and writes a report.
//!
//! This crate is not published. [`cases`] define what is written and what must be in the tables afterwards,
//! [`run`](mod@run) runs them, [`report`] turns the results into files and a table.

#[cfg(feature = "bench")]
pub mod bench;
mod case_name;
pub mod cases;
#[cfg(feature = "chaos")]
pub mod chaos;
pub mod cli;
pub mod database;
mod database_name;
pub mod digest;
#[cfg(feature = "bench")]
mod forwarding;
pub mod memory;
pub mod report;
pub mod rows;
pub mod run;
mod table_spec;
pub mod tell;
pub mod watch;
