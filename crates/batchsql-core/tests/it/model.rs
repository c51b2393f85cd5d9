//! Random schedules of submits, cancellations, faults, flushes and a close, checked against what the sink applied and
//! against a model of the tables.
//!
//! `PROPTEST_CASES` sets the number of schedules; `cargo xtask fuzz` runs many more.

mod check;
mod run;
mod schedule;
mod tables;

use std::time::Duration;

use proptest::prelude::*;

use check::{abandon, check};
use schedule::{action, config, nature};

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_row_ends_once_and_as_it_is_told(
        config in config(),
        actions in proptest::collection::vec(action(), 1..25),
        nature in nature(),
        patient in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let deadline = if patient { Duration::from_secs(3000) } else { Duration::from_millis(700) };
        runtime.block_on(check(config, actions, nature, deadline));
    }

    #[test]
    fn a_pipeline_that_is_abandoned_ends_every_row(
        config in config(),
        actions in proptest::collection::vec(action(), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(abandon(config, actions));
    }
}
