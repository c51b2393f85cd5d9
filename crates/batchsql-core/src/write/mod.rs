//! How one batch is written, and the contract with a driver.
//! Must not know how batches are filled, or in which order they are written.

pub(crate) mod abandoned;
pub(crate) mod attempt;
pub(crate) mod batch_limit;
pub(crate) mod commits;
pub(crate) mod context;
pub(crate) mod doubt;
pub(crate) mod doubt_search;
pub(crate) mod dyn_sink;
pub(crate) mod ended;
pub(crate) mod engine;
pub(crate) mod execute;
pub(crate) mod failure_log;
pub(crate) mod flight;
pub(crate) mod health;
pub(crate) mod held;
pub(crate) mod ids;
pub(crate) mod isolate;
pub(crate) mod job;
mod job_end;
mod job_outcomes;
pub(crate) mod outstanding;
pub(crate) mod plans;
pub(crate) mod position;
pub(crate) mod range;
mod references;
pub(crate) mod repeated;
pub(crate) mod retry;
pub(crate) mod round;
pub(crate) mod sample;
pub(crate) mod session;
pub(crate) mod share;
pub(crate) mod sink;
pub(crate) mod spans;
pub(crate) mod step;
pub(crate) mod watch;
