//! What every database does with every rule and every value: the product against models, through the suite's
//! own view of databases.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod conflicts;
mod runs;
mod servers;
mod types;
