//! `batchsql run`: sources to tables until a signal. `service` starts and ends it, `readiness` tells it to whoever asks,
//! `signals` waits for the end.

mod readiness;
pub(crate) mod service;
pub(crate) mod signals;
