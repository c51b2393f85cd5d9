//! Random input for what reads text or bytes of others, and for what becomes SQL or a protocol: DSNs, names and values on real
//! servers, requests to the exporter.
//!
//! `PROPTEST_CASES` sets the number of cases; `cargo xtask fuzz` runs many more. A case that failed is kept in
//! `tests/proptest-regressions`, and runs first from then on.

mod dsns;
mod exporter;
mod names;
mod values;

use proptest::prelude::ProptestConfig;
use proptest::strategy::Strategy;
use proptest::test_runner::{TestCaseError, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

fn config(cases: u32, file: &'static str) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, max_shrink_iters: 500, source_file: Some(file), ..ProptestConfig::default() }
}

/// Checks random cases one after the other, from a test with several threads.
fn check_each<S: Strategy>(
    strategy: &S,
    config: ProptestConfig,
    check: impl AsyncFn(S::Value) -> Result<(), TestCaseError>,
) {
    let mut runner = TestRunner::new(config);
    let result = block_in_place(|| runner.run(strategy, |case| Handle::current().block_on(check(case))));
    if let Err(error) = result {
        panic!("{error}");
    }
}
