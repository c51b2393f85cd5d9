//! Which batch is written next.
//! Must not know rows or databases.

pub(crate) mod connect_gate;
pub(crate) mod dispatcher;
mod expire;
pub(crate) mod fences;
mod lane_state;
mod log_limit;
pub(crate) mod park;
pub(crate) mod parked;
mod permits;
mod pressure;
pub(crate) mod schedule;
mod start;
pub(crate) mod state;
mod turns;
mod waiting;
