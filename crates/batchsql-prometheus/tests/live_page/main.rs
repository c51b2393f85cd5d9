//! Owns the checks of the live page in a real browser: its text against what was written.
//! Must not know how the page is made, except its hook `window.batchsqlLive`. A separate binary, because browsers are
//! slow while the tests in `it` keep every core busy.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod browser;
mod durable;
mod exporter;
mod feeds;
mod figures;
mod hostile;
mod live;
mod look;
mod section;
mod states;
