//! `batchsql run`: sources to tables until a signal. `service` starts and ends it, `readiness` tells it to whoever asks.

mod open_files;
mod readiness;
pub(crate) mod service;
