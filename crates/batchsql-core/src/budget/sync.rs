//! Owns the atomics and locks of the budget. One step of `cargo xtask test` replaces them with those of a model
//! checker. Must not know what they guard.

#[cfg(all(test, batchsql_loom))]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(all(test, batchsql_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, batchsql_loom)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(all(test, batchsql_loom)))]
pub(crate) use std::sync::{Mutex, MutexGuard};
