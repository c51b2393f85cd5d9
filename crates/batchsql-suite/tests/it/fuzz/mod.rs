//! Random input for what reads text or bytes of others, and for what becomes SQL or a protocol: DSNs, names and values on real
//! servers, requests to the exporter.
//!
//! `PROPTEST_CASES` sets the number of cases; `cargo xtask fuzz` runs many more. A case that failed is kept in
//! `tests/proptest-regressions`, and runs first from then on. `tests/corpus` has cases that are chosen by hand, and run always.

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

/// The cases of a file of the corpus.
fn corpus(file: &str) -> Vec<Vec<u8>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cases: Vec<Vec<u8>> = text.lines().filter(|line| !line.starts_with('#')).map(unescaped).collect();
    assert!(cases.len() > 10, "{file} has its cases");
    cases
}

/// The bytes that a line of the corpus stands for.
fn unescaped(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut parts = line.split('\\');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    while let Some(part) = parts.next() {
        let (byte, rest) = match part.as_bytes() {
            // Two backslashes.
            [] => (b'\\', parts.next().unwrap_or_default()),
            [b'n', ..] => (b'\n', &part[1..]),
            [b'r', ..] => (b'\r', &part[1..]),
            [b't', ..] => (b'\t', &part[1..]),
            [b'x', ..] => (u8::from_str_radix(&part[1..3], 16).expect("two digits"), &part[3..]),
            _ => panic!("no escape: \\{part}"),
        };
        bytes.push(byte);
        bytes.extend(rest.bytes());
    }
    bytes
}

#[test]
fn lines_of_the_corpus_stand_for_bytes() {
    assert_eq!(unescaped(r"a\xff\\\n\r\t\\n"), b"a\xff\\\n\r\t\\n");
    assert_eq!(unescaped(r"\\"), b"\\");
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
