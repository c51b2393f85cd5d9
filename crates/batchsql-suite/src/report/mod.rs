//! The report of a run: one data model, written as JSON, a self-contained page, JUnit and a table.
//! Knows files and folders; must not know databases, the pipeline, or how a case is run.
//!
//! ```
//! use batchsql_suite::report::{self, sample};
//!
//! # let scratch = tempfile::tempdir()?;
//! # let dir = scratch.path().join("report");
//! report::check_writable(&dir)?; // before the run, so that no results are lost at its end
//! let report = sample::report();
//! report::write_all(&report, &dir)?;
//! println!("{}", report::table::render(&report, Some(120)));
//! # anyhow::Ok(())
//! ```

pub mod html;
pub mod json;
pub mod junit;
mod model;
mod number;
pub(crate) mod page;
pub mod sample;
pub mod table;
mod write;

pub use batchsql::metrics::TestResult;
pub use model::{
    CaseResult, DatabaseInfo, Environment, Integrity, Latency, MemorySummary, Report, RunConfig, Sample, Status,
    Summary,
};
pub use write::{FILES, check_writable, write_all};
