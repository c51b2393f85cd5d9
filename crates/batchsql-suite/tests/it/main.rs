//! The program `batchsql-suite` from outside: arguments and environment in; exit status, output and report out. Only
//! [`fuzz`], [`guide`] and [`matrix`] may call into the suite's library. One program, because each would take long to link.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod chaos;
mod complete;
mod database;
mod failing;
#[cfg(all(unix, feature = "chaos"))]
mod feeds;
mod fuzz;
mod guide;
#[cfg(unix)]
mod interrupt;
mod linger;
mod live;
mod matrix;
mod mistakes;
mod options;
mod outage;
#[cfg(unix)]
mod panels;
#[cfg(all(unix, feature = "chaos"))]
mod scale;
mod soak;
mod support;
