//! Owns the checks of the live page in a real browser: what people read there against what was written.
//! Must not know how the page is made, but for its hook `window.batchsqlLive`. A program of its own: browsers are slow
//! beside the tests in `it` that keep every core busy.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod browser;
mod exporter;
mod figures;
mod hostile;
mod live;
mod look;
mod states;
