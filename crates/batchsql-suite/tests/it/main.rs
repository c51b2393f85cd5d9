//! The program `batchsql-suite` from outside: arguments and environment in; exit status, output and
//! report out. Must not call into the suite's library.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod complete;
mod database;
mod failing;
#[cfg(unix)]
mod interrupt;
mod linger;
mod live;
mod mistakes;
mod options;
#[cfg(unix)]
mod panels;
mod support;
